"""What the site takes from the repository itself, at every build (a hook of mkdocs): README, the families' pages, tasks,
keys, commands, Python names, measured results, notebooks, and the sources that pages link to. Nothing of it is committed."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from mkdocs.structure.files import File
from nbconvert import MarkdownExporter

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # this checkout's tasks and code, wherever it is installed from

from bert_ft.config.families import BUILTIN  # noqa: E402 - of this checkout

COPIES = {"README.md": "index.md", "README.zh-CN.md": "index.zh-CN.md", "CONTRIBUTING.md": "contributing.md",
          "CHANGELOG.md": "changelog.md", "SECURITY.md": "security-policy.md"}  # fmt: skip
COPIES |= {f"tasks/{family}/README.md": f"families/{family}.md" for family in BUILTIN}
COPIES |= {f"benchmarks/results/{file.name}": f"benchmarks/{file.name}"
           for file in sorted((ROOT / "benchmarks" / "results").glob("*.md"))}  # fmt: skip
NOTEBOOKS = {f"notebooks/{file.name}": f"notebooks/{file.stem}.md"
             for file in sorted((ROOT / "notebooks").glob("*.ipynb"))}  # fmt: skip
LATER = {"bert.md": "BERT in principle and practice", "bert.zh-CN.md": "BERT 原理与实践"}
HIDDEN = "---\nsearch:\n  exclude: true\n---\n"


def on_config(config: Any) -> Any:
    """Adds to the navigation what is only known here."""
    chapters = [{title: name} for name, title in LATER.items() if (ROOT / "docs" / name).is_file()]
    results = [page for page in COPIES.values() if page.startswith("benchmarks/")]
    config.nav += [{"BERT": chapters}] * bool(chapters) + [
        {"Notebooks": [*NOTEBOOKS.values()]},
        {"Measured": results},
    ]
    return config


def on_files(files: Any, config: Any) -> Any:
    """Adds the pages that are made here, and those of the sources that any page links to."""
    made = {site: (ROOT / path).read_text(encoding="utf-8") for path, site in COPIES.items()}
    for path, site in NOTEBOOKS.items():
        made[site], pictures = notebook(path)
        for name, picture in pictures.items():
            files.append(File.generated(config, f"notebooks/{name}", content=picture))
    made |= {"tasks.md": tasks(), "keys.md": keys(), "cli.md": commands(), "python.md": python()}
    linked: set[str] = set()
    for site in [*made, *(file.src_uri for file in files.documentation_pages())]:
        linked |= rewritten(made.get(site) or (ROOT / "docs" / site).read_text(encoding="utf-8"), site)[1]
    for path in sorted(linked):
        text = (ROOT / path).read_text(encoding="utf-8")
        made[f"source/{path}.md"] = (
            f"{HIDDEN}# {path}\n\n`````{Path(path).suffix[1:] or 'text'}\n{text}\n`````\n"
        )
    for site, text in made.items():
        files.append(File.generated(config, site, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links as the site has them."""
    site = page.file.src_uri
    return markdown if site.startswith("source/") else rewritten(markdown, site)[0]


def rewritten(text: str, site: str) -> tuple[str, set[str]]:
    """A page's text for its place in the site, and the sources of the repository that it links to. Lists get the empty
    line before them that Markdown on GitHub can do without."""
    places = COPIES | NOTEBOOKS
    home = {place: path for path, place in places.items()}.get(site, f"docs/{site}")
    linked: set[str] = set()

    def link(found: re.Match[str]) -> str:
        path, anchor = found[1], found[2] or ""
        target = os.path.normpath(Path(home).parent / path)
        if target in places:
            place = places[target]
        elif target.startswith("docs/"):
            place = target.removeprefix("docs/")
        elif (ROOT / target).is_file():
            linked.add(target)
            place = f"source/{target}.md"
        else:
            return found[0]
        return f"]({os.path.relpath(place, Path(site).parent)}{anchor})"

    lines, code = list[str](), False
    for line in text.split("\n"):
        code ^= line.startswith("```")
        before = lines[-1] if lines else ""
        if not code and line.startswith("- ") and before and not before.startswith(("- ", "  ")):
            lines.append("")
        lines.append(
            line if code else re.sub(r"\]\((?!https?:|mailto:|#)([^)#\s]+)(#[^)\s]*)?\)", link, line)
        )
    return "\n".join(lines), linked


def notebook(path: str) -> tuple[str, dict[str, bytes]]:
    """A notebook as a page, with its outputs, and its pictures by name."""
    stem = Path(path).stem
    text, found = MarkdownExporter().from_filename(
        str(ROOT / path), {"unique_key": stem, "output_files_dir": stem}
    )
    return text, found["outputs"]


def table(head: list[str], rows: list[list[Any]]) -> Iterator[str]:
    """The lines of a table."""
    yield "| " + " | ".join(head) + " |"
    yield "|---" * len(head) + "|"
    for row in rows:
        cells = [
            re.sub(r"(`[^`]*`)|<", lambda m: m[1] or "&lt;", str(cell)).replace("|", "\\|") for cell in row
        ]
        yield "| " + " | ".join(cell.replace("\n", " ") for cell in cells) + " |"
    yield ""


def tasks() -> str:
    """The catalogue: every built-in task, the suites, and every published number with its conditions."""
    from bert_ft.config import frozen
    from bert_ft.config.catalog import builtin, load_task, suites
    from bert_ft.config.catalog import frozen as measurements

    found = [load_task(path) for path in builtin().values()]
    lines = [
        "# Tasks",
        "",
        "Made from the files of the tasks. `bert-ft tasks show NAME` prints one with every default.",
        "",
    ]
    for family in dict.fromkeys(task.family for task in found):
        lines += [f"## {family}", ""]
        lines += table(["task", "title", "data", "labels", "metrics", "original files"],
                       [[f"`{t.name}`", t.title, f"`{t.data.path}`" + (f" {t.data.name}" if t.data.name else ""),
                         len(t.data.labels or []) or "–", ", ".join(t.metric.compute),
                         f"`{t.data.original.folder or 'DIR'}/`" if t.data.original else "–"]
                        for t in found if t.family == family])  # fmt: skip
    measured = [frozen.load(path) for path in measurements().values()]
    lines += ["## Frozen encoders", "", "Measured by `bert-ft reproduce NAME`; nothing is trained.", ""]
    lines += table(["measurement", "title", "data", "what", "metrics"],
                   [[f"`{m.name}`", m.task.title, f"`{m.task.data.path}`", m.measure.measure, ", ".join(m.metrics)]
                    for m in measured])  # fmt: skip
    lines += ["## Suites", ""]
    lines += table(
        ["suite", "title", "tasks"], [[f"`{s.name}`", s.title, ", ".join(s.tasks)] for s in suites().values()]
    )
    lines += ["## Published numbers", "",
              "Each with its conditions; only numbers that agree in all of them can be compared. Confidence: C read in the "
              "source, S transcribed from the paper, U unconfirmed.", ""]  # fmt: skip
    for task in found:
        if task.reference:
            lines += [f"### {task.name}", ""]
            lines += table(["checkpoint", "set", "metric", "value", "statistic", "intermediate", "recipe", "source"],
                           [[r.checkpoint, r.split, r.metric, r.value if r.std is None else f"{r.value} ± {r.std}",
                             r.statistic + (f" of {r.runs}" if r.runs else ""), r.intermediate,
                             ", ".join(f"{key} {value}" for key, value in r.recipe.items()),
                             f"{r.source} ({r.confidence})" + (f"; {r.note}" if r.note else "")]
                            for r in task.reference])  # fmt: skip
    for each in measured:
        lines += [f"### {each.name}", ""]
        lines += table(["checkpoint", "set", "metric", "value", "statistic", "draws", "vectors", "source"],
                       [[r.checkpoint, r.split, r.metric, r.value, r.statistic + (f" of {r.runs}" if r.runs else ""),
                         ", ".join(map(str, r.draws)) or "–",
                         ", ".join(f"{key} {value}" for key, value in r.vectors if value != ""),
                         f"{r.source} ({r.confidence})"] for r in each.references])  # fmt: skip
    return "\n".join(lines)


def keys() -> str:
    """Every key of a task file."""
    from bert_ft.config import frozen
    from bert_ft.config.references import Reference
    from bert_ft.config.schema import Original
    from bert_ft.config.task import TABLES, Task

    lines = ["# Keys of a task", "",
             "Made from [`schema.py`](../bert_ft/config/schema.py), which checks them. In a file: `[recipe]`, then "
             "`learning_rate = 3e-5`; on the command line `--set recipe.learning_rate=3e-5`, where a key that one table alone "
             "has needs no table; in Python `finetune(..., learning_rate=3e-5)`.", ""]  # fmt: skip
    tasks = [Task(family=family) for family in BUILTIN]
    order = {name: TABLES[name] for name in ("data", "metric", "recipe", "batching")}
    order |= {task.table: type(task.options) for task in tasks} | {"run": TABLES["run"]}
    order |= {"data.original": Original, "[reference]": Reference, "frozen": frozen.Measure}
    order |= {"[reference] of a frozen encoder": frozen.FrozenReference, "reference.vectors": frozen.Vectors}
    for name, model in order.items():
        lines += [f"## [{name}]", "", (model.__doc__ or "").replace("\n    ", "\n"), ""]
        lines += table(["key", "type", "default", "meaning"],
                       [[f"`{key}`", kind(field.annotation), "needed" if field.is_required() else _default(field.default),
                         field.description or ""] for key, field in model.model_fields.items()])  # fmt: skip
    return "\n".join(lines)


def kind(annotation: Any) -> str:
    """A type as a person says it."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return kind(inner[0])
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in inner)
    if origin in (Union, UnionType):
        return " or ".join(kind(part) for part in inner if part is not NoneType)
    names = {
        str: "text",
        int: "whole number",
        float: "number",
        bool: "true, false",
        list: "list",
        dict: "table",
    }
    return names.get(origin or annotation, "table")


def _default(value: Any) -> str:
    return "–" if value is None else f"`{str(value).lower() if isinstance(value, bool) else value}`"


def commands() -> str:
    """Every command with its options, as `--help` has them."""
    import typer

    from bert_ft.cli.options import app

    lines = ["# Command line", "", "Made from the commands themselves; `bert-ft COMMAND --help` says the same.", "",
             "Exit codes: 0 done; 2 the input is at fault; 1 anything else; 130 after Ctrl-C. Results go to standard output, "
             "progress to standard error. `--debug` shows the traceback of an error.", ""]  # fmt: skip
    return "\n".join([*lines, *_command(typer.main.get_command(app), "bert-ft", None)])


def _command(command: Any, name: str, parent: Any) -> Iterator[str]:
    context = command.context_class(command, info_name=name.rpartition(" ")[2], parent=parent)
    if parent is not None:
        told, _, examples = (command.help or "").partition("\b")
        yield from (f"## {name}", "", told.strip().replace("\n", " "), "", "```text")
        wanted = [_named(option) if option.required else f"[{_named(option)}]"
                  for option in command.get_params(context) if option.param_type_name == "argument"]  # fmt: skip
        yield from (" ".join([name, "[OPTIONS]", *wanted]), "```", "")
        if examples:
            yield from ("```sh", examples.strip(), "```", "")
        rows = [[f"`{_named(option)}`", getattr(option, "help", None) or "",
                 _shown_default(option)]
                for option in command.get_params(context) if "--help" not in option.opts]  # fmt: skip
        if rows:
            yield from table(["option", "meaning", "default"], rows)
    for inner in getattr(command, "commands", {}).values():
        yield from _command(inner, f"{name} {inner.name}", context)


def _shown_default(option: Any) -> str:
    shown = getattr(option, "show_default", None)
    if isinstance(shown, str):  # of a key of a task, which a file may set too
        return _default(shown)
    return _default(None if option.default in ([], False) else option.default)


def _named(option: Any) -> str:
    if option.param_type_name == "argument":
        return option.metavar or option.name.upper()
    return ", ".join([*option.opts, *option.secondary_opts])


def python() -> str:
    """The public names; mkdocstrings fills them in from their docstrings."""
    import bert_ft

    lines = ["# Python", "", "`import bert_ft` costs nothing: each name is loaded when it is first used.", ""]
    for name in sorted(
        bert_ft._HOMES, key=lambda name: (name[0].isupper(), list(bert_ft._HOMES).index(name))
    ):
        members = ["    options:", "      members: false"] if name in ("Recipe", "Reference", "Task") else []
        lines += [f"::: bert_ft.{bert_ft._HOMES[name]}.{name}", *members, ""]
    return "\n".join(
        [*lines, "::: bert_ft.metrics.load", "    options:", "      show_root_full_path: true", ""]
    )
