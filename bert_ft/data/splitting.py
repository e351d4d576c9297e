"""Rows held out of the training set, and limits."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pyarrow as pa

from bert_ft.config.schema import Data
from bert_ft.data.columns import codes, flat
from bert_ft.data.rows import Rows
from bert_ft.errors import InputError

OTHER = "name a file, --validation FILE, or take another share"
LARGER = "name a file, --validation FILE, or hold a larger share out"
WRONG_COLUMN = (
    "is this the label column? --regression predicts numbers; otherwise name a file: --validation FILE"
)


def split_off(rows: Rows, target: str, data: Data, labelled: bool = True) -> tuple[Rows, Rows]:
    """Holds out the rows that `data.validation` asks for: by whole groups, or stratified by label; the seed
    alone decides which. Of a share, a row whose label would then be in no training row stays in training,
    with its group.

    Args:
        labelled: whether the target holds labels, or lists of them.
    Returns:
        the rest, and the rows that are held out.
    Raises:
        InputError: rows, groups or labels that are too few for it.
    """
    held_out = str(data.validation)
    classes = codes(rows.table[target]) if has_classes(rows, target) else None
    groups = None if data.group is None else codes(rows.table["group"])
    if problem := _impossible(len(rows), data, classes if labelled else None, groups):
        message, remedy = problem
        raise InputError(
            f'validation = "{held_out}" can\'t be held out of {len(rows)} rows: {message}',
            where=rows.where,
            remedy=remedy,
        )
    try:
        if "/" in held_out:
            rest, selected = _fold(len(rows), held_out, data.split_seed, classes, groups)
        else:
            rest, selected = _share(len(rows), float(held_out[:-1]) / 100, data.split_seed, classes, groups)
            if labelled:
                rest, selected = _with_every_label(rows.table[target], rest, selected, groups)
    except ValueError:  # of scikit-learn: no group, or no row, is left on one side
        raise InputError(
            f'validation = "{held_out}" can\'t be held out of {len(rows)} rows: '
            "nothing would be left on one side",
            where=rows.where,
            remedy="use fewer folds" if "/" in held_out else OTHER,
        ) from None
    if not len(selected):  # scikit-learn can leave a fold without a group
        units = "groups" if groups is not None else "rows"
        raise InputError(
            f'validation = "{held_out}" can\'t be held out of {len(rows)} rows: none would be held out; '
            f"there are too few {units}, or too few of each label",
            where=rows.where,
            remedy="use fewer folds" if "/" in held_out else LARGER,
        )
    return rows.take(np.sort(rest)), rows.take(np.sort(selected))


def _impossible(
    n: int, data: Data, classes: np.ndarray | None, groups: np.ndarray | None
) -> tuple[str, str] | None:
    """What forbids to hold rows out, and the remedy; None where nothing does.

    Args:
        n: the number of rows.
        classes: (N,) the label of each, where it has one. groups: (N,) its group, where it has one.
    """
    held_out = str(data.validation)
    if groups is not None:
        units, kind = len(np.unique(groups)), f"'{data.group}'"
        other = "hold rows out by another column (--set group=COLUMN), or name a file: --validation FILE"
        if units < 2:
            return f"all of them have the same {kind}", other
        what = f"they have only {units} different values of {kind}"
    else:
        units = n
        what = f"there {'is only 1 row' if n == 1 else f'are only {n} rows'}"
        if n < 2:
            return what, "name a file: --validation FILE"
        if classes is not None and "/" not in held_out and len(np.unique(classes)) == n:
            return ("each of them has another label", WRONG_COLUMN)
    if "/" in held_out:
        part, of = map(int, held_out.split("/"))
        if part > of:
            return f"there is no fold {part} of {of}", "use fewer folds"
        if of < 2:
            return "one fold leaves no row to train on", "use at least two: --validation 1/2"
        return (what, f"use fewer folds: at most {units}") if of > units else None
    share = float(held_out[:-1])
    if share >= 100:
        return "no row would be left to train on", "hold fewer out: --validation 10%"
    return ("none would be held out", "hold more out: --validation 10%") if share == 0 else None


def _fold(
    n: int, held_out: str, seed: int, classes: np.ndarray | None, groups: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers of the rest, and of fold "i/k"."""
    from sklearn import model_selection as sk

    part, of = map(int, held_out.split("/"))
    kinds = {
        (False, False): sk.KFold,
        (False, True): sk.StratifiedKFold,
        (True, False): sk.GroupKFold,
        (True, True): sk.StratifiedGroupKFold,
    }
    folds = kinds[groups is not None, classes is not None](of, shuffle=True, random_state=seed)
    with warnings.catch_warnings():  # a class of fewer rows than folds is as even as it can be
        warnings.simplefilter("ignore")
        rest, selected = list(folds.split(np.arange(n), classes, groups))[part - 1]
    return rest, selected


def _share(
    n: int, share: float, seed: int, classes: np.ndarray | None, groups: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers of the rest, and of a share of the rows."""
    from sklearn import model_selection as sk

    smaller = min(math.ceil(share * n), n - math.ceil(share * n))
    if groups is not None:
        splitter = sk.GroupShuffleSplit(1, test_size=share, random_state=seed)
    elif classes is None:
        splitter = sk.ShuffleSplit(1, test_size=share, random_state=seed)
    elif smaller > 0 and (smaller <= classes.max() or np.bincount(classes).min() < 2):
        return _apportioned(classes, share, seed)  # scikit-learn refuses these
    else:
        splitter = sk.StratifiedShuffleSplit(1, test_size=share, random_state=seed)
    rest, selected = next(splitter.split(np.arange(n), classes, groups))
    return rest, selected


def _apportioned(classes: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """As a stratified share, where some labels have too few rows: those with the largest remainders give one
    row more, and every label keeps one in training."""
    draw = np.random.default_rng(seed)
    counts = np.bincount(classes)
    taken = np.minimum(np.floor(counts * share).astype(int), counts - 1)
    by_remainder = np.lexsort([draw.random(len(counts)), taken - counts * share])
    spare = by_remainder[(taken < counts - 1)[by_remainder]]
    missing = max(0, math.ceil(share * len(classes)) - int(taken.sum()))
    taken[spare[:missing]] += 1
    shuffled = draw.permutation(len(classes))
    by_class = shuffled[np.argsort(classes[shuffled], kind="stable")]
    first = np.cumsum(counts) - counts
    place = np.arange(len(classes)) - np.repeat(first, counts)
    chosen = place < np.repeat(taken, counts)
    return by_class[~chosen], by_class[chosen]


def _with_every_label(
    column: pa.ChunkedArray, rest: np.ndarray, selected: np.ndarray, groups: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """The rest and the rows held out of it, less those with a label that would be in no row of the rest, with
    all of their group."""
    labels, owners = flat(column)
    numbers = codes(labels)
    in_rest = np.isin(owners, rest)
    strange = np.unique(owners[~in_rest & ~np.isin(numbers, numbers[in_rest])])
    if groups is not None:
        strange = np.intersect1d(selected, np.flatnonzero(np.isin(groups, groups[strange])))
    return np.union1d(rest, strange), np.setdiff1d(selected, strange)


def has_classes(rows: Rows, target: str) -> bool:
    """Whether the target is a name, so that a split can be stratified by it."""
    return target in rows.table.column_names and pa.types.is_string(rows.table[target].type)


def limit(rows: Rows, n: int | None, seed: int) -> Rows:
    """The first `n` rows after the seeded shuffle."""
    if n is None or n >= len(rows):
        return rows
    return rows.take(np.random.default_rng([seed, 0x11317]).permutation(len(rows))[:n])


def both_orders(rows: Rows) -> Rows:
    """The rows, and behind them every pair with its texts exchanged: a label holds for both orders alike.

    Raises:
        InputError: the rows have no pairs.
    """
    table = rows.table
    if "text_pair" not in table.column_names:
        remedy = "it is for pairs of texts: --set both_orders=false"
        raise InputError("the rows have no second text", where="recipe.both_orders", remedy=remedy)
    swapped = table.set_column(table.column_names.index("text"), "text", table["text_pair"])
    swapped = swapped.set_column(table.column_names.index("text_pair"), "text_pair", table["text"])
    numbers = np.arange(len(rows)) if rows.numbers is None else rows.numbers
    return Rows(
        pa.concat_tables([table, swapped]), rows.where, np.concatenate([numbers, numbers]),
        label_order=rows.label_order, parts=rows.parts,
    )  # fmt: skip
