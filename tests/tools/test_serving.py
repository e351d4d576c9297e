"""The service and the Spark job of docs/serving.md, as they stand there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pages
import pytest

import bert_ft

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow


def script(name: str, language: str = "") -> str:
    """A file that a page shows."""
    text = (ROOT / "docs" / f"serving{language}.md").read_text(encoding="utf-8")
    [block] = [block for block in pages.blocks(text) if block.title == name]
    return block.code


@pytest.fixture
def folder(tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One with runs/stars and reviews.csv."""
    pages.write_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    rows = [{"text": f"a {'good' if i % 2 else 'dull'} thing", "label": str(i % 2)} for i in range(8)]
    bert_ft.finetune(
        "classification", tiny_checkpoint, train=rows, validation=rows, max_steps=1, quiet=True, output="runs/stars"
    )  # fmt: skip
    return tmp_path


def test_both_pages_show_the_same_scripts() -> None:
    for name in ("service.py", "spark_job.py"):
        assert script(name) == script(name, ".zh-CN")


def test_the_service_answers_as_predict_does(folder: Path) -> None:
    pytest.importorskip("fastapi", reason="pip install fastapi httpx")
    from fastapi.testclient import TestClient

    scope: dict[str, Any] = {"__name__": "service"}
    exec(compile(script("service.py"), "service.py", "exec"), scope)
    client = TestClient(scope["service"])
    texts = ["a good thing", "好东西"]
    answered = client.post("/predict", json={"inputs": texts})
    assert answered.status_code == 200
    assert answered.json() == json.loads(json.dumps(bert_ft.load("runs/stars").predict(texts)))
    assert client.post("/predict", json={"inputs": "no list"}).status_code == 422
    mixed = client.post("/predict", json={"inputs": ["a text", ["a", "pair"]]})
    assert mixed.status_code == 422 and isinstance(mixed.json()["detail"], str)


def test_the_spark_job_answers_as_predict_does(folder: Path) -> None:
    pytest.importorskip("pyspark", reason="pip install pyspark")
    if shutil.which("java") is None:
        pytest.skip("Spark needs Java")
    Path("spark_job.py").write_text(script("spark_job.py"), encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYSPARK_PYTHON": sys.executable}
    subprocess.run([sys.executable, "spark_job.py"], check=True, env=environment, timeout=600)
    import pyarrow.parquet as pq

    rows = pq.read_table("answered").to_pylist()
    expected = bert_ft.load("runs/stars").predict([row["review"] for row in rows])
    assert len(rows) == len(Path("reviews.csv").read_text().splitlines()) - 1
    assert [row["prediction"] for row in rows] == [str(answer["prediction"]) for answer in expected]
