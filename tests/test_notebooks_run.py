"""The notebooks: every one runs, its headline numbers are those committed, and its outputs hold nothing of a machine."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
NEEDS = {"09-wrong-labels": "cleanlab"}  # extras that are not installed with the others
# two parts of a path at least, not the end of a tag, of an address or of a fraction
ABSOLUTE = re.compile(
    r"(?<![\w.:/<>~)-])/(?:[\w.+-]+/)+[\w.+-]*|\b[A-Z]:\\\\?[A-Za-z]|/(?:home|Users|root|tmp|var)/"
)


@pytest.fixture(scope="module")
def tool() -> Any:
    """notebooks/run.py."""
    for needed in ("nbclient", "ipykernel"):
        pytest.importorskip(needed, reason=f"notebooks run with {needed}: pip install -e '.[notebooks]'")
    from notebooks import run

    return run


def texts(output: dict[str, Any]) -> str:
    """All that a reader can see of an output, pictures aside."""
    seen = {kind: value for kind, value in output.get("data", {}).items() if kind != "image/png"}
    return "\n".join(
        "".join(part) if isinstance(part, list) else str(part)
        for part in [output.get("text", ""), *seen.values()]
    )


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_committed_outputs_are_clean(path: Path) -> None:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1)), (
        "not run from top to bottom"
    )
    assert sum("headline" in cell["metadata"].get("tags", []) for cell in cells) == 1
    assert all(cell["metadata"].keys() <= {"tags"} for cell in notebook["cells"])
    assert notebook["metadata"].keys() == {"kernelspec", "language_info"}
    assert path.stat().st_size < 200_000
    for output in [output for cell in cells for output in cell["outputs"]]:
        assert output["output_type"] != "error" and output.get("name") != "stderr", texts(output)
        assert not (found := ABSOLUTE.findall(texts(output))), found
        assert "Warning" not in texts(output) and "\x1b[" not in texts(output) and "\r" not in texts(output)


@pytest.mark.parametrize("path", [pytest.param(p, id=p.stem, marks=pytest.mark.slow) for p in NOTEBOOKS])
def test_it_runs_and_its_headline_numbers_hold(path: Path, tool: Any) -> None:
    if not (ROOT / ".demo").is_dir():
        pytest.skip("no .demo: `make assets` fetches it")
    if path.stem in NEEDS:
        pytest.importorskip(NEEDS[path.stem])
    import nbformat

    committed, now = nbformat.read(path, as_version=4), tool.execute(path)
    assert tool.headline(committed) and not tool.stale(tool.headline(committed), tool.headline(now))
    # what finetune() tells is one output that is written anew, not one a line
    assert [len(cell.get("outputs", ())) for cell in now.cells] == [
        len(cell.get("outputs", ())) for cell in committed.cells
    ]


def test_the_tool_cleans_and_finds_what_is_stale(
    tmp_path: Path, tool: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    import nbformat
    from nbformat import v4

    path = tmp_path / "one.ipynb"
    code = "import tempfile, pathlib, sys\nprint(tempfile.mkdtemp() + '/runs/a', pathlib.Path(sys.path[0]).exists(), '{}/x')"
    cells = [
        v4.new_code_cell(code.format(ROOT)),
        v4.new_code_cell("{'rows': 7, 'f1': 0.5}", metadata={"tags": ["headline"]}),
    ]
    nbformat.write(v4.new_notebook(cells=cells), path)
    assert tool.main([str(path)]) == 0
    notebook = nbformat.read(path, as_version=4)
    printed = notebook.cells[0].outputs[0].text
    assert (
        printed.split()[0] == "runs/a"
        and printed.split()[-1] == "x"
        and "execution" not in notebook.cells[0].metadata
    )
    assert tool.headline(notebook) == {"rows": 7, "f1": 0.5}
    for old, stale in (({"f1": 0.54}, False), ({"f1": 0.56}, True), ({"rows": 8}, True), ({"f2": 0.5}, True)):
        assert bool(tool.stale({"rows": 7, "f1": 0.5} | old, {"rows": 7, "f1": 0.5})) == stale
    assert not tool.stale({"f1": 63.2}, {"f1": 66.9}) and tool.stale({"f1": 63.2}, {"f1": 69.0})
    notebook.cells[1].outputs[0].data["text/plain"] = "{'rows': 8, 'f1': 0.5}"
    nbformat.write(notebook, path)
    capsys.readouterr()
    assert tool.main(["--check", str(path)]) == 1 and "rows: committed 8, now 7" in capsys.readouterr().out
