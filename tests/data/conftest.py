from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bert_ft.config.catalog import load_task
from bert_ft.data import loading, overrides, rows
from bert_ft.families.classification.adapter import Classification

Load = Callable[..., rows.Splits]


def load_rows(
    train: Any, validation: Any = None, test: Any = None, task: Any = "classification", **keys: Any
) -> rows.Splits:
    """What `finetune` reads for these sets; without a validation set, the training rows serve as one.

    A key of the task is written with `__` in place of the dot: `data__columns={...}`.
    """
    sets = overrides.sets(train, validation, test)
    if "validation" not in sets and "data__validation" not in keys:
        sets = overrides.sets(train, next(iter(sets["train"].values())), test)
    changes = overrides.changes(sets) | {key.replace("__", "."): value for key, value in keys.items()}
    return loading.load(load_task(task).override(changes), Classification, overrides.objects(sets))


@pytest.fixture(scope="session", name="load_rows")
def _load_rows() -> Load:
    return load_rows
