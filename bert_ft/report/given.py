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

from bert_ft.data import lists
from bert_ft.data.formats import json_rows
from bert_ft.data.soft import EXACT, NEAR
from bert_ft.data.soft_cells import of_pipeline, whole
from bert_ft.errors import did_you_mean, shown

MARKS = (",", ";", "|")  # between labels, where no label has them
Row = Mapping[str, Any]


def one_label(said: Row, names: Sequence[str], codes: Mapping[str, str]) -> dict[str, Any]:
    """`prediction` and `probabilities` of one label a row; without probabilities the answer has all of it.

    Args:
        names: the labels. codes: labels as they stand in the data -> their names.
    """
    probabilities = _probabilities(said, names, codes)
    total = sum(probabilities.values())
    if probabilities and abs(total - 1) > NEAR + EXACT:
        raise ValueError(
            f"the probabilities sum to {total:.4g}, not to 1; give that of each label, or the answer alone, "
            "in 'prediction'"
        )
    if _missing(said.get("prediction")):
        if not probabilities:
            raise ValueError("no prediction")
        return {"prediction": max(names, key=probabilities.__getitem__), "probabilities": probabilities}
    label = _name(said["prediction"], names, codes)
    return {
        "prediction": label,
        "probabilities": probabilities or {name: float(name == label) for name in names},
    }


def label_set(
    said: Row, names: Sequence[str], codes: Mapping[str, str], delimiter: str | None = None
) -> dict[str, Any]:
    """The same of a set of labels: of probabilities alone those above 0.5.

    Args:
        delimiter: what stands between the labels of one cell, where the task says so.
    """
    probabilities = _probabilities(said, names, codes)
    value = said.get("prediction")
    if _missing(value) and probabilities:
        chosen = [name for name in names if probabilities[name] > 0.5]
        return {"prediction": chosen, "probabilities": probabilities}
    items = [] if _missing(value) else _labels(value, names, codes, delimiter)
    chosen = list(dict.fromkeys(_name(item, names, codes) for item in items))
    return {
        "prediction": chosen,
        "probabilities": probabilities or {name: float(name in chosen) for name in names},
    }


def number(said: Row) -> dict[str, Any]:
    """`prediction`, a finite number."""
    return {"prediction": _number(said.get("prediction"))}


def _number(value: Any) -> float:
    try:
        found = float("" if isinstance(value, bool) else value)
    except (TypeError, ValueError):
        raise ValueError(f"{shown(value, 60)!r} where a number is expected") from None
    if not math.isfinite(found):
        raise ValueError(f"{found} where a finite number is expected")
    return found


def tags(said: Row, words: int, names: Sequence[str], codes: Mapping[str, str]) -> dict[str, Any]:
    """`prediction`, a tag a word; it need not be one of the task's, whose numbers have their names."""
    value = said.get("prediction")
    found = [str(tag) for tag in ([] if _missing(value) else _list(value))]
    if len(found) != words:
        raise ValueError(f"{len(found):,} tags for {words:,} words")
    found = [codes.get(tag, tag) if tag.isdecimal() and tag not in names else tag for tag in found]
    if names and (numbers := [tag for tag in found if tag.isdecimal() and tag not in names]):
        raise ValueError(f"the number {numbers[0]} where the name of a tag is expected, such as {names[-1]}")
    return {"prediction": found}


def text(said: Row) -> dict[str, Any]:
    """`prediction`, a text, empty where there is no answer; as sure of it as can be, since the file says
    nothing of that."""
    value = said.get("prediction")
    if value is not None and not isinstance(value, str):
        quotes = "" if isinstance(value, (list, dict)) else "; write it in quotes"
        raise ValueError(f"{shown(value, 60)} where a text is expected{quotes}")
    return {"prediction": value or "", "score": 1.0, "null_odds": -1.0 if value else 1.0}


def _missing(value: Any) -> bool:
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def _list(value: Any) -> list[Any]:
    """A list, also as JSON, Python or NumPy writes it in a cell; or words."""
    if isinstance(value, str):
        value = _written(value) if value.lstrip().startswith("[") else value.split()
    if not isinstance(value, list):
        raise ValueError(f"{shown(value, 60)} where a list is expected")
    return value


def _written(cell: str) -> list[Any]:
    """The list that a cell has within brackets."""
    try:
        value = json_rows.loads(cell)
    except json.JSONDecodeError:
        found, rest = lists.items(lists.between_brackets(cell))
        value = None if rest else [text for text, _ in found]
    if not isinstance(value, list):
        raise ValueError(f"{shown(cell, 60)!r} where a list is expected")
    return value


def _labels(value: Any, names: Sequence[str], codes: Mapping[str, str], delimiter: str | None) -> list[Any]:
    """The labels of a cell: a list, one label, or several between what parts them."""
    if not isinstance(value, str):
        return value if isinstance(value, list) else [value]
    if _find(value, names, codes) is not None:
        return [value]
    if value.lstrip().startswith("["):
        return _written(value)
    for mark in (delimiter, *MARKS):
        parts = [part.strip() for part in value.split(mark)] if mark else []
        if mark == delimiter and parts:
            return parts
        if len(parts) > 1 and all(_find(part, names, codes) is not None for part in parts):
            return parts
    if len(parts := value.split()) > 1 and all(_find(part, names, codes) is not None for part in parts):
        listed = json.dumps(parts, ensure_ascii=False)
        raise ValueError(f"'{shown(value, 60)}' is none of the labels; write several as a list: {listed}")
    return [value]


def _find(value: Any, names: Sequence[str], codes: Mapping[str, str]) -> str | None:
    """The label that a value names, as it is called or as it stands in the data; None where there is none."""
    plain = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
    for form in dict.fromkeys((plain, plain.strip(), whole(plain.strip()))):
        for name in (form, codes.get(form, form)):
            if name in names:
                return name
    return None


def _name(value: Any, names: Sequence[str], codes: Mapping[str, str]) -> str:
    """The label that a value names."""
    if (found := _find(value, names, codes)) is not None:
        return found
    hint = did_you_mean(str(value), names) or f"use one of: {', '.join(names[:10])}"
    raise ValueError(f"'{shown(value, 60)}' is none of the labels; {hint}")


def _probabilities(said: Row, names: Sequence[str], codes: Mapping[str, str]) -> dict[str, float]:
    """Label -> probability of every label; empty where the row has none."""
    found: dict[str, float] = {}
    pairs = _pairs(said.get("probabilities"), names)
    for key, value in pairs:
        name = _name(key, names, codes)
        if name in found:
            raise ValueError(f"'{name}' has two probabilities")
        found[name] = _number(value)
    if strange := [name for name, p in found.items() if not 0 <= p <= 1 + EXACT]:
        raise ValueError(
            f"{found[strange[0]]:g} of '{strange[0]}' where a probability from 0 to 1 is expected; divide "
            "percentages by 100, take the softmax of logits"
        )
    return {name: found.get(name, 0.0) for name in names} if found else {}


def _pairs(value: Any, names: Sequence[str]) -> list[tuple[Any, Any]]:
    """Each label that a cell names, and what it says of it: a dictionary, what a pipeline of `transformers`
    gives, or a list in the order of the labels. Empty where the cell is."""
    if isinstance(value, str) and value:
        try:
            value = json_rows.loads(value)
        except json.JSONDecodeError:
            raise ValueError(f"{shown(value, 60)!r} where probabilities are expected") from None
    if _missing(value) or value in ({}, []):
        return []
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], list):
        value = value[0]  # of one text, with top_k=None
    for item in value if isinstance(value, list) else [value]:
        for key, fault in getattr(item, "faults", {}).items():
            raise ValueError(f"'{key}' {fault}")
    if isinstance(value, dict):  # in Parquet each row has the labels of all
        return [(key, p) for key, p in value.items() if p is not None]
    if isinstance(value, list) and (pairs := of_pipeline(value)) is not None:
        return pairs
    if not isinstance(value, list) or len(value) != len(names):
        raise ValueError(f"{shown(value, 60)} where a probability for each label is expected")
    return list(zip(names, value, strict=True))
