"""Answers of another model as lines of predictions: what a file of them holds, in the words of a scored
set.

Each function takes what one row of the file says (column -> value), and raises `ValueError` with what is
wrong with it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from bert_ft import reading
from bert_ft.errors import did_you_mean, shown

Row = Mapping[str, Any]


def one_label(said: Row, names: Sequence[str], codes: Mapping[str, str]) -> dict[str, Any]:
    """`prediction` and `probabilities` of one label a row; without probabilities the answer has all of it.

    Args:
        names: the labels. codes: labels as they stand in the data -> their names.
    """
    probabilities = _probabilities(said, names, codes)
    if _missing(said.get("prediction")):
        if not probabilities:
            raise ValueError("no prediction")
        return {"prediction": max(names, key=probabilities.__getitem__), "probabilities": probabilities}
    label = _name(said["prediction"], names, codes)
    return {
        "prediction": label,
        "probabilities": probabilities or {name: float(name == label) for name in names},
    }


def label_set(said: Row, names: Sequence[str], codes: Mapping[str, str]) -> dict[str, Any]:
    """The same of a set of labels: of probabilities alone those above 0.5."""
    probabilities = _probabilities(said, names, codes)
    if "prediction" not in said and probabilities:
        chosen = [name for name in names if probabilities[name] > 0.5]
        return {"prediction": chosen, "probabilities": probabilities}
    value = said.get("prediction")
    items = [] if _missing(value) else _list(value)
    chosen = [_name(item, names, codes) for item in items]
    return {
        "prediction": chosen,
        "probabilities": probabilities or {name: float(name in chosen) for name in names},
    }


def number(said: Row) -> dict[str, Any]:
    """`prediction`, a finite number."""
    value = said.get("prediction")
    try:
        found = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise ValueError(f"{shown(value, 60)!r} where a number is expected") from None
    if not math.isfinite(found):
        raise ValueError(f"{found} where a finite number is expected")
    return {"prediction": found}


def tags(said: Row, words: int) -> dict[str, Any]:
    """`prediction`, a tag a word."""
    value = said.get("prediction")
    found = [str(tag) for tag in ([] if _missing(value) else _list(value))]
    if len(found) != words:
        raise ValueError(f"{len(found):,} tags for {words:,} words")
    return {"prediction": found}


def text(said: Row) -> dict[str, Any]:
    """`prediction`, a text, empty where there is no answer; as sure of it as can be, since the file says
    nothing of that."""
    value = said.get("prediction")
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{shown(value, 60)} where a text is expected")
    return {"prediction": value or "", "score": 1.0, "null_odds": -1.0 if value else 1.0}


def _missing(value: Any) -> bool:
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def _list(value: Any) -> list[Any]:
    """A list, also as JSON writes it in a cell; or words."""
    if isinstance(value, str):
        if value.lstrip().startswith("["):
            try:
                value = reading.loads(value)
            except json.JSONDecodeError:
                raise ValueError(f"{shown(value, 60)!r} where a list is expected") from None
        else:
            value = value.split()
    if not isinstance(value, list):
        raise ValueError(f"{shown(value, 60)} where a list is expected")
    return value


def _name(value: Any, names: Sequence[str], codes: Mapping[str, str]) -> str:
    """The label that a value names, as it is called or as it stands in the data."""
    plain = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
    for name in (plain, codes.get(plain, plain), plain.strip()):
        if name in names:
            return name
    hint = did_you_mean(plain, names) or f"use one of: {', '.join(names[:10])}"
    raise ValueError(f"'{shown(plain, 60)}' is none of the labels; {hint}")


def _probabilities(said: Row, names: Sequence[str], codes: Mapping[str, str]) -> dict[str, float]:
    """Label -> probability of every label; empty where the row has none."""
    value = said.get("probabilities")
    if _missing(value):
        return {}
    if isinstance(value, str):
        try:
            value = reading.loads(value)
        except json.JSONDecodeError:
            raise ValueError(f"{shown(value, 60)!r} where probabilities are expected") from None
    if isinstance(value, list) and len(value) == len(names):
        value = dict(zip(names, value, strict=True))
    if not isinstance(value, dict):
        raise ValueError(f"{shown(value, 60)} where a probability for each label is expected")
    found = {_name(key, names, codes): number({"prediction": p})["prediction"] for key, p in value.items()}
    return {name: found.get(name, 0.0) for name in names}
