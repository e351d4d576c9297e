"""How many rows each run of a curve trains on, and whether they are enough."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow.compute as pac

from bert_ft.data import splitting
from bert_ft.errors import InputError
from bert_ft.prepared import Prepared

FORM = 'a share is written "10%", a number of rows 200'
SHARE = re.compile(r"(\d+(?:\.\d+)?)\s*%")


@dataclass(frozen=True)
class Size:
    """A part of the training rows. `requested`: the share or the number, as it was given."""

    requested: str
    rows: int


def sizes(shares: Sequence[str | int], total: int) -> list[Size]:
    """The parts of `total` training rows, ascending.

    Raises:
        InputError: no share and no number of rows; none of the rows, or more than there are; two that are the
            same rows.
    """
    result = sorted((_size(share, total) for share in shares), key=lambda size: size.rows)
    if not result:
        raise InputError("no share is given", where="shares", remedy=FORM)
    for first, second in pairwise(result):
        if first.rows == second.rows:
            raise InputError(
                f"{first.requested} and {second.requested} are the same {first.rows:,} rows",
                where="shares",
                remedy="leave one of them out",
            )
    return result


def _size(share: str | int, total: int) -> Size:
    text = str(share).strip()
    if match := SHARE.fullmatch(text):
        percent = float(match[1])
        if not 0 < percent <= 100:
            raise InputError(
                f"{text} is no part of the rows",
                where="shares",
                remedy="a share lies above 0% and up to 100%",
            )
        return Size(text, max(1, round(total * percent / 100)))
    if isinstance(share, bool) or not re.fullmatch(r"\d+", text) or int(text) == 0:
        raise InputError(f"'{text}' is neither a share nor a number of rows", where="shares", remedy=FORM)
    if int(text) > total:
        raise InputError(
            f"{text} rows are asked for, and there are {total:,} training rows",
            where="shares",
            remedy="100% is all of them",
        )
    return Size(text, int(text))


def refuse_missing_labels(prepared: Prepared, fewest: Size, seeds: Sequence[int]) -> None:
    """Refuses a smallest part in which a label of the training rows has no row; the larger parts of the same
    seed hold the smaller.

    Raises:
        InputError: the share, the seed and the label.
    """
    train, target = prepared.splits.train, prepared.adapter.target
    if not splitting.has_classes(train, target):
        return
    labels = pac.unique(train.table[target])
    if fewest.rows < len(labels):
        raise InputError(
            f"{fewest.requested} is {_rows(fewest.rows)}, fewer than the {len(labels):,} labels",
            where="shares",
            remedy="begin with a larger share",
        )
    for seed in seeds:
        drawn = splitting.limit(train, fewest.rows, seed)
        missing = np.setdiff1d(labels.to_pylist(), pac.unique(drawn.table[target]).to_pylist())
        if len(missing):
            raise InputError(
                f"{fewest.requested} is {_rows(fewest.rows)}, and with seed {seed} none of them has the "
                f"label '{missing[0]}'",
                where="shares",
                remedy="begin with a larger share, or take other seeds: --seeds 11,12,13",
            )


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count:,} rows"
