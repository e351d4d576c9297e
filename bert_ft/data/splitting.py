"""Rows held out of the training set, and limits."""

from __future__ import annotations

import warnings

import numpy as np
import pyarrow as pa

from bert_ft.config.schema import Data
from bert_ft.data.columns import codes
from bert_ft.data.rows import Rows
from bert_ft.errors import InputError


def split_off(rows: Rows, target: str, data: Data) -> tuple[Rows, Rows]:
    """Holds out the rows that `data.validation` asks for: by whole groups, or stratified by label; the seed
    alone decides which.

    Returns:
        the rest, and the rows that are held out.
    Raises:
        InputError: rows, groups or labels that are too few for it.
    """
    from sklearn import model_selection as sk

    held_out = str(data.validation)
    indices = np.arange(len(rows))
    classes = codes(rows.table[target]) if has_classes(rows, target) else None
    groups = None if data.group is None else codes(rows.table["group"])
    kind = groups is not None, classes is not None
    folds = {
        (False, False): sk.KFold,
        (False, True): sk.StratifiedKFold,
        (True, False): sk.GroupKFold,
        (True, True): sk.StratifiedGroupKFold,
    }
    shares = {(False, False): sk.ShuffleSplit, (False, True): sk.StratifiedShuffleSplit}
    try:
        if "/" in held_out:
            part, of = map(int, held_out.split("/"))
            if part > of:
                raise ValueError(f"there is no fold {part} of {of}")
            parts = folds[kind](of, shuffle=True, random_state=data.split_seed)
        else:
            part = 1
            share = float(held_out[:-1]) / 100
            parts = shares.get(kind, sk.GroupShuffleSplit)(1, test_size=share, random_state=data.split_seed)
        with warnings.catch_warnings():  # a class of fewer rows than folds is as even as it can be
            warnings.simplefilter("ignore")
            rest, selected = list(parts.split(indices, classes, groups))[part - 1]
        if not len(selected):  # scikit-learn can leave one without a group
            raise ValueError("there are too few groups for so many folds")
    except ValueError as error:
        remedy = "use fewer folds" if "/" in held_out else "use a validation file, or a larger share"
        if data.group is not None:
            remedy += f", or another group than '{data.group}' (--set group=COLUMN)"
        raise InputError(
            f'validation = "{held_out}" can\'t be held out of {len(rows)} rows: {error}',
            where=rows.where,
            remedy=remedy,
        ) from None
    return rows.take(np.sort(rest)), rows.take(np.sort(selected))


def has_classes(rows: Rows, target: str) -> bool:
    """Whether the target is a name, so that a split can be stratified by it."""
    return target in rows.table.column_names and pa.types.is_string(rows.table[target].type)


def limit(rows: Rows, n: int | None, seed: int) -> Rows:
    """The first `n` rows after the seeded shuffle."""
    if n is None or n >= len(rows):
        return rows
    return rows.take(np.random.default_rng([seed, 0x11317]).permutation(len(rows))[:n])
