"""The documentation keeps its word: its commands and code run, its links lead somewhere, the site builds and is whole."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pages
import pytest

from bert_ft.config import few_rows
from bert_ft.data import hub

ROOT = Path(__file__).resolve().parents[1]
SOURCES = [
    file
    for pattern in ("*.md", "docs/*.md", "tasks/*/README.md", "benchmarks/results/*.md")
    for file in sorted(ROOT.glob(pattern))
]
TEXTS = {file.relative_to(ROOT).as_posix(): file.read_text(encoding="utf-8") for file in SOURCES}
CODE = [
    name for name, text in TEXTS.items() if any(b.language not in pages.SHOWN for b in pages.blocks(text))
]
QUICK = ("README.md", "docs/extending.md")  # the others are marked slow


@pytest.fixture(scope="module", autouse=True)
def checkpoints(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The hub's cache holds a tiny checkpoint of four layers, with BERT's 512 positions, under every name in the pages."""
    from huggingface_hub import constants
    from transformers import AutoConfig, AutoTokenizer, BertModel

    tiny = tmp_path_factory.mktemp("pages") / "bert"
    sizes = {"max_position_embeddings": 512, "num_hidden_layers": 4}
    BertModel(AutoConfig.from_pretrained(tiny_checkpoint, **sizes)).save_pretrained(tiny)
    AutoTokenizer.from_pretrained(tiny_checkpoint, model_max_length=512).save_pretrained(tiny)
    folder = Path(constants.HF_HUB_CACHE)
    names = {name for text in TEXTS.values() for name in pages.CHECKPOINT.findall(text)}
    pages.fill_cache(folder, names, tiny)
    yield
    for name in names:
        shutil.rmtree(folder / f"models--{name.replace('/', '--')}")


@pytest.fixture
def sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pages.Sandbox:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hub, "dataset", pages.Builder)
    monkeypatch.setattr(few_rows, "PASSES", 1)
    monkeypatch.setattr(few_rows, "LEAST", 9)  # steps; here the commands are tried, and not what is learned
    pages.write_files(tmp_path)
    return pages.Sandbox((ROOT / "Makefile").read_text())


@pytest.mark.parametrize(
    "page", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in CODE]
)
def test_every_command_and_block_runs(page: str, sandbox: pages.Sandbox) -> None:
    for block in pages.blocks(TEXTS[page]):
        sandbox.run(block)
    if page == "docs/extending.md":
        _extended(sandbox)


def _extended(sandbox: pages.Sandbox) -> None:
    """What the guide's own metric, loss and family gave."""
    from sklearn.metrics import recall_score

    metric, _, ordinal, *_ = sandbox.runs
    lines = metric.predictions()
    labels, answers = ([line[key] for line in lines] for key in ("label", "prediction"))
    recall = recall_score(labels, answers, average="macro", labels=sorted(set(labels)))
    assert metric.metrics["validation"]["macro_recall"] == pytest.approx(recall)
    probabilities = ordinal.predict("a great thing")[0]["probabilities"]
    assert len(probabilities) == 5 and sum(probabilities.values()) == pytest.approx(1)


# --- links ------------------------------------------------------------------------------------------------------------


def _anchor(heading: str) -> str:
    """GitHub's anchor of a heading, and ours (pymdownx.slugs)."""
    plain = re.sub(r"\[([^]]*)\]\([^)]*\)|[`*]", r"\1", heading)
    plain = "".join(c for c in unicodedata.normalize("NFC", plain).lower() if c.isalnum() or c in "-_ ")
    return plain.strip().replace(" ", "-")


@pytest.mark.parametrize("page", TEXTS)
def test_no_dead_link(page: str) -> None:
    text = pages.FENCE.sub("", TEXTS[page])
    for target in re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        assert file.exists(), target
        if anchor and file.suffix == ".md":
            there = pages.FENCE.sub("", file.read_text(encoding="utf-8"))
            headings = re.findall(r"^#+ (.+)$", there, re.MULTILINE)
            assert anchor in map(_anchor, headings) or f'<a id="{anchor}"></a>' in there, target


# --- the site ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_site_builds_and_asks_nobody(tmp_path: Path) -> None:
    """Built with --strict, so with no warning; and what a browser would load of a page lies in the site."""
    pytest.importorskip("mkdocs")
    done = subprocess.run([sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
                          cwd=ROOT, capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    built = {file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("*.html")}
    assert {"index.html", "tasks.html", "cli.html", "python.html", "keys.html", "families/qa.html"} <= built
    for name in built:
        text = (tmp_path / name).read_text(encoding="utf-8")
        loaded = re.findall(r'<(?:img|script|iframe)[^>]* src="?([^"\s>]+)', text)
        loaded += re.findall(r'<link[^>]* href="?([^"\s>]+)', text)
        for address in loaded:
            assert not re.match(r"(https?:)?//", address), (name, address)
            file = (tmp_path / name).parent / address.split("#")[0].split("?")[0]
            assert address.startswith("data:") or file.exists() or name == "404.html", (name, address)
    styles = "".join(file.read_text(encoding="utf-8") for file in tmp_path.rglob("*.css"))
    assert not re.findall(r"url\(\s*['\"]?(?:https?:)?//", styles)


# --- habits -----------------------------------------------------------------------------------------------------------


def test_the_citation_and_the_issue_forms_are_whole() -> None:
    import tomllib

    import yaml

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0" and citation["message"] and citation["authors"]
    assert (citation["title"], citation["version"], citation["license"]) == (
        "bert-ft",
        project["version"],
        project["license"],
    )
    for file in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"):
        form = yaml.safe_load(file.read_text(encoding="utf-8"))
        if file.stem == "config":
            continue
        assert form["name"] and form["description"]
        ids = [part["id"] for part in form["body"] if part["type"] != "markdown"]
        assert ids and len(ids) == len(set(ids))


def test_make_help_names_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    assert targets - {"assets"} <= set(re.findall(r"^([a-z]+):.*## ", makefile, re.MULTILINE))
