"""JSON and JSONL of texts and labels, as annotation tools export them too."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from bert_ft.config.schema import Data
from bert_ft.data.formats import json_rows
from bert_ft.data.sources import Raw

ANSWERS = {"accept", "reject", "ignore"}


def read(path: Path, wanted: list[str], data: Data, optional: tuple[str, ...]) -> Raw:
    """The wanted keys of every object. Prodigy's rows whose `answer` is "reject" or "ignore" are not used: of
    the first a person said that this is not the label.

    Raises:
        InputError: as `json_rows.read`.
    """
    rows = json_rows.objects(path, data.encoding)
    raw = Raw(json_rows.columns_of(rows, path, wanted, data.encoding, optional), str(path))
    answers = [row.get("answer") for row in rows]
    if "answer" in wanted or not all(answer in ANSWERS for answer in answers if answer is not None):
        return raw
    refused = np.array([answer in ("reject", "ignore") for answer in answers])
    if refused.any():
        counts = Counter(answer for answer in answers if answer in ("reject", "ignore"))
        how = " and ".join(f"'{answer}' ({n:,})" for answer, n in sorted(counts.items()))
        raw.used = ~refused
        raw.notes = [f"rows answered {how} are left out; the first: row {int(np.argmax(refused)) + 1}"]
    return raw
