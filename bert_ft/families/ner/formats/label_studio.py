"""Label Studio's annotations of a text."""

from __future__ import annotations

from typing import Any

from bert_ft.errors import InputError
from bert_ft.families.ner.formats.collected import LeftOut

HTML = ("hypertextlabels", "paragraphlabels", "timeserieslabels")
"""Types of labels whose places are no characters of a text."""
CANCELLED = "rows that an annotator has skipped (was_cancelled)"


def is_export(row: dict[str, Any], key: str) -> bool:
    """Whether what a row has under a key is a list of what its annotators did."""
    value = row[key]
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        return False
    return "result" in value[0] if value else isinstance(row.get("data"), dict)


def results(annotations: list[Any], where: str) -> tuple[list[Any] | None, bool]:
    """(what the one annotator of a text did, None where nobody has; whether all have skipped it).

    Raises:
        InputError: there are several.
    """
    valid = [each for each in annotations if not each.get("was_cancelled")]
    if len(valid) > 1:
        message = f"{len(valid)} annotations of one text"
        raise InputError(message, where=where, remedy="export one annotation of each text")
    return (valid[0].get("result") if valid else None), bool(annotations) and not valid


def labels(items: list[Any], where: str, left: LeftOut) -> list[Any]:
    """The labels among an annotator's results; the others, such as relations and choices, are left out.

    Raises:
        InputError: labels of something that is no plain text.
    """
    out = []
    for item in items:
        kind = item.get("type", "labels") if isinstance(item, dict) else "labels"
        if kind in HTML:
            raise InputError(
                f"the labels are of the type '{kind}', whose places are no characters of a text",
                where=where,
                remedy='label plain text: <Text name="text" value="$text"/> and <Labels>',
            )
        if kind == "labels":
            out.append(item)
        else:
            left.add(f"Label Studio results of the type {kind!r:.40}", where)
    return out


def label(value: dict[str, Any], where: str) -> Any:
    """The label of a region.

    Raises:
        InputError: it has several.
    """
    found = value.get("labels") or []
    if len(found) > 1:
        raise InputError(
            f"the region {value.get('start')} to {value.get('end')} has {len(found)} labels: "
            f"{', '.join(map(str, found)):.60}",
            where=where,
            remedy="a word has one tag: leave one label in each region; "
            '<Labels ... choice="single"> allows no more',
        )
    return next(iter(found), None)
