"""The house: imports run downward only, and the rooms stay small."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

from bert_ft.config.families import BUILTIN

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "bert_ft"
FLOORS = [  # from the ground up: a module imports its own floor and those below
    {"errors", "imports", "progress"},
    {"files", "reading"},
    {"metrics"},
    {"config"},
    {"rundir"},
    {"data"},
    {"report"},
    {"families"},
    {"kernels"},
    {"engine"},
    {"modeling", "display"},
    {"prepared", "baselines", "pages"},
    {"run"},
    {"jobs"},
    {"finetuning"},
    {"tools"},
    {"cli", "__main__", "__init__"},
]

CORE = ("engine/loop.py", "families/base.py", "families/classification/", "finetuning/")
"""What a reader reads to know how a run comes about; the rest may grow."""


FAMILIES = re.compile(rf"(?<![\w-])({'|'.join(BUILTIN)})(?![\w-])")
"""The name of a built-in family, as a word: no part of "text-classification" or "multi_label_classification"."""
CLASSES = {place.rpartition(":")[2] for place in BUILTIN.values()}
ELSEWHERE = (
    "__init__.py",  # the public names
    "families/",
    "metrics/",  # where `classification` is the name of a kind of metrics
    "cli/",  # whose options --tokens and --tags say in their help of which family they are
)


def _room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def _imports(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("bert_ft"):
            for name in node.names:
                deeper = PACKAGE.joinpath(*node.module.split(".")[1:], name.name)
                is_module = deeper.is_dir() or deeper.with_suffix(".py").is_file()
                found.add(f"{node.module}.{name.name}" if is_module else node.module)
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names if name.name.startswith("bert_ft")}
    return found


def test_imports_run_downward() -> None:
    floor = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}
    upward = []
    for file in PACKAGE.rglob("*.py"):
        module = ".".join(["bert_ft", *file.relative_to(PACKAGE).with_suffix("").parts]).removesuffix(
            ".__init__"
        )
        for imported in _imports(file):
            if _room(module) != "__init__" and floor[_room(imported)] > floor[_room(module)]:
                upward.append(f"{module} imports {imported}")
    assert not upward, upward


def test_no_circle() -> None:
    graph = {}
    for file in PACKAGE.rglob("*.py"):
        parts = file.relative_to(PACKAGE).with_suffix("").parts
        graph[".".join(["bert_ft", *parts]).removesuffix(".__init__")] = _imports(file)
    graph.pop("bert_ft")  # the lazy public names
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join([*path, module])
        if module in done or module not in graph:
            return
        for imported in graph[module]:
            visit(imported, (*path, module))
        done.add(module)

    for module in graph:
        visit(module, ())


def _code(file: Path) -> int:
    """Lines of code: what is left without blank lines, comments and docstrings."""
    source, lines = file.read_text(), set()
    skip = {
        tokenize.COMMENT,
        tokenize.NL,
        tokenize.NEWLINE,
        tokenize.INDENT,
        tokenize.DEDENT,
        tokenize.ENDMARKER,
    }
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in skip:
            lines |= set(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if (
            isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
            and ast.get_docstring(node) is not None
        ):
            lines -= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    return len(lines)


def test_rooms_stay_small() -> None:
    files = {file.relative_to(PACKAGE).as_posix(): file for file in PACKAGE.rglob("*.py")}
    lines = {name: len(file.read_text().splitlines()) for name, file in files.items()}
    code = {name: _code(file) for name, file in files.items()}
    core = {name: n for name, n in code.items() if name.startswith(CORE)}
    assert sum(core.values()) <= 1800, core
    assert lines["engine/loop.py"] <= 350
    assert max(lines.values()) <= 390, lines  # "not much beyond 350"


def test_functions_are_read_at_one_sight() -> None:
    long = {
        f"{file.relative_to(PACKAGE)}: {node.name}": (node.end_lineno or 0) - node.lineno + 1
        for file in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    }
    assert max(long.values()) <= 80, {name: n for name, n in long.items() if n > 80}


def _words(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and text of each identifier and each string that the code computes with: a docstring is prose."""
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            yield line, node.value
        elif isinstance(node, ast.alias):
            yield line, f"{node.name} {node.asname}"
        for field in ("id", "attr", "arg", "module", "name"):
            if isinstance(name := getattr(node, field, None), str) and not isinstance(node, ast.alias):
                yield line, name


def test_no_family_is_known_by_its_name() -> None:
    """What the house knows of a family it knows from the family: beside the registry and the public names none
    of the built-in ones is mentioned."""
    told = []
    for file in PACKAGE.rglob("*.py"):
        name = file.relative_to(PACKAGE).as_posix()
        lines = file.read_text().splitlines()
        for line, word in set(_words(ast.parse("\n".join(lines)))):
            registered = name == "config/families.py" and ': "bert_ft.families.' in lines[line - 1]
            if (
                (FAMILIES.search(word) or word in CLASSES)
                and not registered
                and not name.startswith(ELSEWHERE)
            ):
                told.append(f"{name}, line {line}: {word}")
    for file in PACKAGE.rglob("*.j2"):
        code = " ".join(re.findall(r"{[{%].*?[%}]}", file.read_text(), re.DOTALL))
        told += [f"{file.name}: {found[0]}" for found in FAMILIES.finditer(code)]
    assert not told, told
