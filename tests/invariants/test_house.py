"""The house: imports run downward only, and the rooms stay small."""

from __future__ import annotations

import ast
import io
import tokenize
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "bert_ft"
FLOORS = [  # from the ground up: a module imports its own floor and those below
    {"errors"},
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
    {"prepared", "pages"},
    {"run"},
    {"jobs"},
    {"finetuning"},
    {"tools"},
    {"cli", "__main__", "__init__"},
]

CORE = ("engine/loop.py", "families/base.py", "families/classification/", "finetuning/")
"""What a reader reads to know how a run comes about; the rest may grow."""


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
    assert sum(core.values()) <= 1650, core
    assert lines["engine/loop.py"] <= 350
    assert max(lines.values()) <= 390, lines  # "not much beyond 350"
