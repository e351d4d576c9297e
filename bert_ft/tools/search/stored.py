"""The trials of a stored study, which somebody else may have written: names of folders and values of keys are
taken from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial

from bert_ft.errors import BertFtError, InputError
from bert_ft.tools.search.storage import is_of_storage

REMEDY = "--output DIR puts a new search elsewhere"


@contextmanager
def readable(where: str) -> Iterator[None]:
    """Turns what Optuna says of a study that it can't read into one message."""
    try:
        yield
    except (BertFtError, optuna.exceptions.OptunaError):
        raise
    except Exception as error:
        if is_of_storage(error):
            raise
        message = f"this study can't be read: {type(error).__name__}: {' '.join(str(error).split())}"
        raise InputError(message, where=where, remedy=REMEDY) from None


def checked(
    trials: list[FrozenTrial], space: Mapping[str, BaseDistribution], where: str
) -> list[FrozenTrial]:
    """The trials of a study, once each is one that a search of this space could have written.

    Raises:
        InputError: one that is not, with its number.
    """
    for trial in trials:
        if fault := _fault(trial, space):
            message = f"trial {trial.number} of this study is none of this search: {fault}"
            raise InputError(message, where=where, remedy=REMEDY)
    return trials


def _fault(trial: FrozenTrial, space: Mapping[str, BaseDistribution]) -> str:
    """What is wrong with a trial; empty: nothing."""
    said: Mapping[str, Any] = trial.user_attrs
    for key in ("first", "repeats"):  # numbers of earlier trials, of which names of folders are made
        if key in said and not (type(said[key]) is int and 0 <= said[key] < trial.number):
            return f"{key} = {said[key]!r:.100}"
    if not isinstance(said.get("note", ""), str):
        return f"note = {said['note']!r:.100}"
    fixed = trial.system_attrs.get("fixed_params", {})
    if not isinstance(fixed, dict):
        return f"its recipe is {fixed!r:.100}"
    for key in (*trial.params, *fixed):
        if key not in space:
            return f"{key!r:.100} is not searched"
        if trial.distributions.get(key, space[key]) != space[key]:
            return f"{key} is drawn from {trial.distributions[key]!r:.200}"
    for key, value in fixed.items():
        if not _contains(space[key], value):
            return f"{key} = {value!r:.100}"
    return ""


def _contains(distribution: BaseDistribution, value: Any) -> bool:
    try:
        return bool(distribution._contains(distribution.to_internal_repr(value)))
    except (ValueError, TypeError):
        return False
