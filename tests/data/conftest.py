from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bert_ft import data
from bert_ft.adapters.classification import Classification
from bert_ft.data import given
from bert_ft.task import load_task

Load = Callable[..., data.Splits]


def load_rows(
    train: Any, validation: Any = None, test: Any = None, task: Any = "classification", **keys: Any
) -> data.Splits:
    """What `finetune` reads for these sets; without a validation set, the training rows serve as one.

    A key of the task is written with `__` in place of the dot: `data__columns={...}`.
    """
    sets = given.sets(train, validation, test)
    if "validation" not in sets and "data__validation" not in keys:
        sets = given.sets(train, next(iter(sets["train"].values())), test)
    changes = given.changes(sets) | {key.replace("__", "."): value for key, value in keys.items()}
    return data.load(load_task(task).override(changes), Classification, given.objects(sets))


@pytest.fixture(scope="session", name="load_rows")
def _load_rows() -> Load:
    return load_rows
