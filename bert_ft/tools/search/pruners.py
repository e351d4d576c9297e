"""Optuna's pruners by the names that a call has for them."""

from __future__ import annotations

from typing import Any

import optuna

from bert_ft.errors import InputError, did_you_mean

PRUNERS: dict[str, Any] = {
    "median": optuna.pruners.MedianPruner,
    "asha": optuna.pruners.SuccessiveHalvingPruner,
}


def pruner_of(pruner: Any) -> Any:
    """The pruner of a name; another one as it is. Raises InputError: there is none of that name."""
    if not isinstance(pruner, str):
        return pruner
    if pruner not in PRUNERS:
        raise InputError(f"no pruner '{pruner}'", where="pruner", remedy=did_you_mean(pruner, PRUNERS))
    return PRUNERS[pruner]()
