"""A short run of every kind, with texts, labels and titles that would be active in careless HTML."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import bert_ft

SCRIPT, IMAGE, CLOSING = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</svg></style>{{ 7*7 }} $x$ &amp;",
)
WORDS = ["warm film", "dull plot", "brave heart", "empty hours"]
Runs = dict[str, bert_ft.Run]


def _texts(n: int) -> list[str]:
    return [f"{WORDS[i % 4]} {'and grace ' * (i % 7)}{(SCRIPT, IMAGE, CLOSING)[i % 3]} {i}" for i in range(n)]


def _classes(n: int, labels: list[str]) -> list[dict[str, Any]]:
    return [{"text": text, "label": labels[i % 4 % len(labels)]} for i, text in enumerate(_texts(n))]


def _sets(n: int) -> list[dict[str, Any]]:
    labels = [SCRIPT, IMAGE, "plain"]
    return [{"text": text, "label": [name for k, name in enumerate(labels) if (i + 1) >> k & 1]}
            for i, text in enumerate(_texts(n))]  # fmt: skip


def _numbers(n: int) -> list[dict[str, Any]]:
    return [{"text": text, "label": i % 4 / 2 + i % 3} for i, text in enumerate(_texts(n))]


def _entities(n: int) -> list[dict[str, Any]]:
    return [{"tokens": ["Anna", IMAGE, "went", "to", f"New{i}", "Rome", *["and"] * (i % 5)],
             "tags": [f"B-{SCRIPT}", f"I-{SCRIPT}", "O", "O", "B-LOC", "I-LOC", *["O"] * (i % 5)]} for i in range(n)]  # fmt: skip


def _questions(n: int) -> list[dict[str, Any]]:
    out = []
    for i, text in enumerate(_texts(n)):
        answer = text.split()[0]
        found = {"text": [answer], "answer_start": [0]} if i % 3 else {"text": [], "answer_start": []}
        out.append(
            {
                "id": f"{IMAGE}{i}",
                "question": f"{'what' if i % 2 else IMAGE} is it ?",
                "context": text,
                "answers": found,
            }
        )
    return out


MAKE: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "classes": ("classification", lambda n: _classes(n, [SCRIPT, IMAGE]), {"metric.compute": ["accuracy", "f1", "matthews_correlation"]}),
    "many classes": ("classification", lambda n: [row | {"label": f"label {i % 23}"} for i, row in enumerate(_classes(n, ["x"]))],
                     {"metric.compute": ["accuracy", "f1_macro"]}),
    "sets": ("classification", _sets, {"data.problem_type": "multi_label_classification", "thresholds": "per-label"}),
    "numbers": ("classification", _numbers, {"data.problem_type": "regression"}),
    "entities": ("ner", _entities, {}),
    "questions": ("qa", _questions, {"no_answer": True, "doc_stride": 16}),
}  # fmt: skip


@pytest.fixture(scope="session")
def runs(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Kind -> a finished run of 10 steps with an evaluation every 5, 69 training rows and 46 to score."""
    folder, made = tmp_path_factory.mktemp("runs"), {}
    for kind, (family, rows, settings) in MAKE.items():
        task = bert_ft.load_task(family).model_copy(
            update={"title": f"{kind} {IMAGE} {CLOSING}", "name": kind.split()[-1]}
        )
        steps = {
            "max_steps": 10,
            "eval_every": 5,
            "log_every": 2,
            "batch_size": 8,
            "max_length": 64,
            "learning_rate": 3e-3,
        }
        made[kind] = bert_ft.finetune(task, str(tiny_checkpoint), output=folder / kind, train=rows(69), validation=rows(46),
                                      check=False, quiet=True, **(steps | settings))  # fmt: skip
    return made
