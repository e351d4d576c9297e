"""Labels that are amiss by what they are called: twins that differ in their spelling alone, and names that
mean no label."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from decimal import Decimal

import pyarrow as pa

from bert_ft.data.checks.columns import fold
from bert_ft.data.checks.findings import listed
from bert_ft.data.finding import Finding

# what people and programs write for no label; "none" and "other" are classes as often as not
NO_LABEL = {"", "-", "--", "–", "—", ".", "?", "\\n", "n/a", "n.a.", "na", "nan", "null", "<na>", "#n/a"}
NUMBER = re.compile(r"[+-]?\d+(\.\d*)?")


def of_counts(counts: Mapping[str, Mapping[str, float]]) -> Iterator[Finding]:
    """What there is to say of labels; `counts`: set -> label -> rows that bear it."""
    yield from _near_equal(counts)
    yield from _no_labels(counts)


def _no_labels(counts: Mapping[str, Mapping[str, float]]) -> Iterator[Finding]:
    """Labels that are no class by what they are called."""
    total: defaultdict[str, float] = defaultdict(int)
    for found in counts.values():
        for label, n in found.items():
            total[label] += n
    told = {label: f"{label!r} ({n:,} rows)" for label, n in total.items()}
    empty = [label for label in total if label.strip().lower() in NO_LABEL]
    key = f"data.skip_labels={json.dumps(empty, ensure_ascii=False)}"
    message = f"labels that may mean no label; --set '{key}' leaves their rows out"
    yield from listed("warning", "all", message, [told[label] for label in empty], "labels")
    lists = [label for label in total if label[:1] in ("[", "{")]
    message = "labels written as lists or JSON; --multi-label learns several labels a row"
    yield from listed("warning", "all", message, [told[label] for label in lists], "labels")


def _near_equal(counts: Mapping[str, Mapping[str, float]]) -> Iterator[Finding]:
    labels = list(dict.fromkeys(label for found in counts.values() for label in found))
    folded = fold(pa.array(labels, pa.large_string())).to_pylist()
    numbers = [str(Decimal(key).normalize()) if NUMBER.fullmatch(key) else key for key in folded]
    total = {label: sum(found.get(label, 0) for found in counts.values()) for label in labels}
    told = {label: f"{label!r} ({total[label]:,} rows)" for label in labels}
    how = "labels with a twin that differs in case or white space alone (data.label_names makes them one)"
    number = (
        "labels with a twin that is the same number, written in another way (data.label_names makes them one)"
    )
    for message, keys, first in ((how, folded, labels), (number, numbers, folded)):
        groups: dict[str, dict[str, str]] = {}
        for label, key, spelling in zip(labels, keys, first, strict=True):
            groups.setdefault(key, {}).setdefault(spelling, label)
        several = [
            " and ".join(told[label] for label in of.values()) for of in groups.values() if len(of) > 1
        ]
        yield from listed("warning", "all", message, several, "labels")
