"""What is wrong with the labels of a classification, or the numbers of a regression: `checks` of what is
learned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pac

from bert_ft.data.checks import label_names
from bert_ft.data.checks.columns import encode, fold, has_target, mask_of, plain
from bert_ft.data.checks.findings import at, listed
from bert_ft.data.checks.labels import FEW, cell, gives_away
from bert_ft.data.columns import flat
from bert_ft.data.finding import KEPT, Finding
from bert_ft.data.rows import Rows
from bert_ft.families import soft_labels

DOMINANT = 0.9  # share of the rows with one label, or one number, from which a score says little


def of_classes(
    sets: Mapping[str, Rows], names: Sequence[str], roles: Sequence[str], target: str
) -> Iterator[Finding]:
    """Unknown, missing and near-equal labels, rare and dominant ones, and training texts that give theirs
    away.

    Args:
        names: the labels that the head has.
        target: the column of label names; lists of them where a row may have several.
    """
    known = set(names)
    counts = {name: found for name, rows in sets.items() if (found := soft_labels.counts(rows, target))}
    for name in counts:
        rows = sets[name]
        column = rows.table[target].combine_chunks()
        unknown = [label for label in counts[name] if label not in known]
        labels, owners = flat(column)
        strange = np.zeros(len(rows), bool)
        strange[owners[mask_of(pac.is_in(labels, pa.array(unknown, labels.type)))]] = True
        shown = ", ".join([*map(repr, unknown[:3]), "..."][: len(unknown)])
        message = f"rows with a label unknown to training ({shown})"
        yield from at("labels", "fault", name, rows, strange, message, roles)
        missing = mask_of(pac.is_null(column))
        yield from at(
            "labels", "warning", name, rows, missing, "rows without a label, so the set has no score", roles
        )
    yield from label_names.of_counts(counts)
    train = {label: counts["train"].get(label, 0) for label in names} if "train" in counts else {}
    even = sum(train.values()) / max(1, len(train))
    absent = [label for label, n in train.items() if not n]
    few = [f"{label}: {n}" for label, n in train.items() if 0 < n < FEW]
    rare = [f"{label}: {n}" for label, n in train.items() if FEW <= n < even / 10]
    yield from listed("warning", "train", "labels without a training row", absent)
    yield from listed("warning", "train", f"labels with fewer than {FEW} training rows", few)
    yield from listed("note", "train", "labels with less than a tenth of an even share of the rows", rare)
    for name in counts:
        label, n = max(counts[name].items(), key=lambda item: item[1], default=("", 0))
        if n >= DOMINANT * len(sets[name]) and not pa.types.is_list(sets[name].table[target].type):
            message = f"rows with one label, {label!r} ({n / len(sets[name]):.1%}): accuracy says little"
            yield Finding("balance", "warning", name, int(n), message)
        lacking = [label for label, n in train.items() if n and label not in counts[name]]
        yield from listed("note", name, "labels of training without a row here", lacking)
    if "train" in counts:
        yield from _told_by_texts(sets["train"], names, roles, target)


def of_numbers(sets: Mapping[str, Rows], target: str) -> Iterator[Finding]:
    """Targets that are nearly all the same, so that a correlation is undefined or rests on a few rows."""
    for name, rows in sets.items():
        if has_target(rows, target):
            numbers, counts = np.unique(rows.table[target].drop_null().to_numpy(), return_counts=True)
            share = counts.max() / counts.sum()
            number = numbers[counts.argmax()]
            if share >= DOMINANT:
                message = f"rows with one and the same target, {number:g} ({share:.1%})"
                yield Finding("balance", "warning", name, int(counts.max()), message)
            elif np.ptp(numbers) <= 1e-6 * np.abs(numbers).max():
                message = f"rows with nearly the same target, {numbers[0]:.9g} to {numbers[-1]:.9g}"
                yield Finding("balance", "warning", name, len(rows), message)


def _told_by_texts(rows: Rows, names: Sequence[str], roles: Sequence[str], target: str) -> Iterator[Finding]:
    """Texts that begin or end with a word that tells the label, or that hold its name."""
    labels = encode([plain(rows.table[target])])[0]
    folded = fold(pa.array(names, pa.large_string())).to_pylist()
    wanted = [name for name in folded if len(name) > 2 and not name.isdigit()][:60]
    for role in [role for role in roles if role in rows.table.column_names]:
        column = pac.utf8_trim_whitespace(pac.utf8_lower(plain(rows.table[role])))
        # the first row of each text: one that stands there often tells nothing
        _, once = np.unique(encode([column])[0], return_index=True)
        told = {}
        for end, back in (("begins", False), ("ends", True)):
            words = pac.utf8_split_whitespace(column, max_splits=1, reverse=back)
            offsets = words.offsets.to_numpy()
            told[f"{end} with a word that"] = encode(
                [words.values.take(offsets[1:] - 1 if back else offsets[:-1])]
            )[0]
        bits = [
            mask_of(pac.match_substring(column, name)).astype(np.int64) << i for i, name in enumerate(wanted)
        ]
        told["holds a label's name, which"] = np.sum(bits, axis=0) if bits else np.zeros(len(rows), np.int64)
        for how, values in told.items():
            mask = np.zeros(len(rows), bool)
            mask[once] = gives_away(values[once], labels[once])
            message = f"rows whose {role} {how} gives the label away"
            beside = [cell(rows.table[target], i) for i in np.flatnonzero(mask)[:KEPT].tolist()]
            yield from at("leak", "warning", "train", rows, mask, message, [role], beside)
