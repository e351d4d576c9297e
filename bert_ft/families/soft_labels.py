"""Soft targets of rows (`data.soft`): what is learned is a distribution over labels; what is counted is each
row's own label, or where it has none the likeliest.

Canonical rows have two columns more: `soft`, a struct with the probability of each label, and where it comes
of votes `votes`, how many. A row without either is learned from its label.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pac

from bert_ft.config.schema import Data
from bert_ft.config.task import Task
from bert_ft.data import columns as cells
from bert_ft.data import soft
from bert_ft.data.checks.columns import has_target
from bert_ft.data.checks.findings import at
from bert_ft.data.checks.label_names import NO_LABEL
from bert_ft.data.checks.labels import label_counts
from bert_ft.data.finding import Finding, Severity
from bert_ft.data.rows import Rows
from bert_ft.data.soft import COLUMN, VOTES
from bert_ft.data.soft_cells import whole_numbers
from bert_ft.data.sources import Raw
from bert_ft.errors import InputError, did_you_mean
from bert_ft.families.base import Adapter
from bert_ft.metrics import agreement, distributions

SAME = 1e-9  # how near two probabilities are that count as equal
POOR = 0.667  # below it Krippendorff takes data to be too unreliable even for tentative conclusions


# --- rows


def add(out: dict[str, Any], raw: Raw, task: Task, used: np.ndarray | None) -> list[str]:
    """Adds the columns of soft targets to canonical ones, and a label to each row that has none of its own;
    returns what there is to know of them."""
    notes: list[str] = []
    if task.data.problem_type == "single_label_classification":  # as votes are read
        column = (
            out["label"] if isinstance(out["label"], pa.ChunkedArray) else pa.chunked_array([out["label"]])
        )
        (out["label"],), notes = whole_numbers([column], task.data)
    names = soft.present(raw, task.data)
    if not names:
        return notes
    title = ", ".join(f"'{name}'" for name in names)
    label = out["label"] if isinstance(out["label"], pa.Array) else out["label"].combine_chunks()
    if task.data.problem_type == "regression":
        mean, scores, notes = soft.means(raw, task.data, names, used)
        out["label"] = pac.coalesce(mean, label)
        alpha = agreement.alpha_of_numbers(scores)
        told = "" if np.isnan(alpha) else f"; they agree by Krippendorff's alpha {alpha:.3f} (interval)"
        return [*notes, f"the number of a row is the mean of those in {title}{told}"]
    found = soft.read(raw, task.data, names, used)
    if not found.names:
        return [*notes, *found.notes]
    out |= found.columns()
    own = pac.is_valid(label).to_numpy(zero_copy_only=False)
    if task.data.problem_type == "multi_label_classification":
        likeliest = _sets(found)
    else:
        likeliest = pa.array(found.names).take(pa.array(found.shares.argmax(axis=1)))
    likeliest = pac.if_else(pa.array(found.given), likeliest, pa.scalar(None, likeliest.type))
    out["label"] = pac.coalesce(label, likeliest)
    notes = [
        *dict.fromkeys([*notes, *found.notes, *_no_votes(found, task.data)]),
        f"{int(found.given.sum()):,} of {len(own):,} rows are distributions over labels, of {title}",
    ]
    if other := int(pac.sum(_differ(label, likeliest)).as_py() or 0):
        notes.append(
            f"{other:,} rows have a label of their own that is not the likeliest: they are scored by it, and "
            "learned from the distribution"
        )
    return [*notes, *_votes(found)]


def _sets(found: soft.Soft) -> pa.Array:
    """The labels of each row that are likelier than not."""
    order = sorted(range(len(found.names)), key=found.names.__getitem__)
    names = np.array(found.names, object)
    lists = [names[[i for i in order if row[i]]].tolist() for row in found.shares > 0.5]
    return pa.array(lists, pa.list_(pa.string()))


def _differ(first: pa.Array, second: pa.Array) -> pa.Array:
    """Where two columns of names have different values; a null is none."""
    if pa.types.is_list(first.type):
        first, second = (pac.binary_join(column, "\x1f") for column in (first, second))
    return pac.not_equal(first, second)


def _no_votes(found: soft.Soft, data: Data) -> list[str]:
    """The note on labels that may be none by what they are called, as `check` has it."""
    voted = [name for name, share in zip(found.names, found.shares.sum(axis=0), strict=True) if share > 0]
    named = {*data.label_names.values(), *map(str, data.labels or [])}
    odd = [name for name in voted if name.strip().lower() in NO_LABEL and name not in named]
    key = f"data.skip_labels={json.dumps(odd, ensure_ascii=False)}"
    listed = ", ".join(map(repr, odd))
    return [f"labels that may mean no vote: {listed}; --set '{key}' leaves them out"] if odd else []


def _votes(found: soft.Soft) -> list[str]:
    if not found.votes.any():
        return []
    some = found.votes[found.votes > 0]
    votes = f"{some.min():,} to {some.max():,}" if some.min() < some.max() else f"{some.max():,}"
    return [f"{votes} votes a row"] if some.max() > 1 else []


def names(rows: Rows) -> list[str]:
    """The labels of rows, those that only a distribution names among them, sorted."""
    labels = set(pac.unique(cells.flat(rows.table["label"])[0]).to_pylist())
    fields = rows.table.schema.field(COLUMN).type if COLUMN in rows.table.column_names else ()
    return sorted((labels | {field.name for field in fields}) - {None})


def matrix(rows: Rows, labels: Sequence[str]) -> tuple[np.ndarray, np.ndarray] | None:
    """(N, C) the distribution of each row over the labels in their order, and (N,) whether it has one; None
    where no row has."""
    if COLUMN not in rows.table.column_names:
        return None
    column = rows.table[COLUMN].combine_chunks()
    result = np.zeros((len(rows), len(labels)))
    for i in range(column.type.num_fields):
        name = column.type.field(i).name
        if name in labels:
            result[:, labels.index(name)] = pac.fill_null(pac.struct_field(column, [i]), 0.0).to_numpy()
    return result, pac.is_valid(column).to_numpy(zero_copy_only=False)


def targets(adapter: Adapter, rows: Rows) -> np.ndarray | None:
    """(N, C) float64, what each row is learned from in the order of the head: its distribution, or its label;
    zeros where it has neither. None where no row has a distribution."""
    found = matrix(rows, adapter.names)
    if found is None:
        return None
    shares, given = found
    labels = adapter.references(rows)
    hard = labels.astype(np.float64) if labels.ndim == 2 else np.eye(len(adapter.names) + 1)[labels][:, :-1]
    result: np.ndarray = np.where(given[:, None], shares, hard)
    return result


def encoded(adapter: Adapter, rows: Rows) -> dict[str, np.ndarray]:
    """`soft`, what the loss takes in the place of labels; empty where no row has a distribution."""
    found = targets(adapter, rows)
    return {} if found is None else {COLUMN: found.astype(np.float32)}


def check(adapter: Adapter, rows: Rows) -> None:
    """Refuses distributions that the adapter can't learn.

    Raises:
        InputError: over labels that it does not know, or for a loss that knows labels alone.
    """
    if COLUMN not in rows.table.column_names:
        return
    owner = next(cls for cls in type(adapter).__mro__ if "loss" in vars(cls))
    if not vars(owner).get("soft_targets", False):
        raise InputError(
            f"the loss of {owner.__name__} is for one label a row, and data.soft gives distributions",
            where="data.soft",
            remedy="let it read batch['soft'] where that is there, and say so: soft_targets = True",
        )
    known = adapter.names
    column = rows.table[COLUMN].combine_chunks()
    for i in range(column.type.num_fields):
        name = column.type.field(i).name
        first = pac.index(pac.greater(pac.struct_field(column, [i]), 0), True).as_py()
        if name not in known and first >= 0:
            source = (
                "data.labels does not name it" if adapter.task.data.labels else "training does not have it"
            )
            raise InputError(
                f"label '{name}' of a distribution: {source}",
                where=rows.place(first),
                remedy=did_you_mean(name, known),
            )


# --- what is told


def scores(adapter: Adapter, predictions: Mapping[str, np.ndarray], rows: Rows) -> dict[str, float]:
    """The measures of `metrics.distributions` for rows that have some; empty for others."""
    target = targets(adapter, rows) if "probabilities" in predictions else None
    if target is None:
        return {}
    return distributions.compute(
        predictions["probabilities"], target, adapter.task.data.problem_type == "multi_label_classification"
    )


def counts(rows: Rows, target: str) -> dict[str, Any]:
    """Label -> rows that bear it, the most frequent first: of distributions how many are expected to."""
    if not has_target(rows, target):
        return {}
    labels = names(rows) if COLUMN in rows.table.column_names else []
    found = matrix(rows, labels)
    if found is None:
        return label_counts(rows.table[target])
    shares, given = found
    total = dict(zip(labels, shares[given].sum(axis=0).tolist(), strict=True))
    for label, count in label_counts(rows.table[target].filter(pa.array(~given))).items():
        total[label] += count
    rounded = {label: round(count, 1) for label, count in total.items()}
    whole = {label: int(count) if count == int(count) else count for label, count in rounded.items()}
    return dict(sorted(whole.items(), key=lambda item: -item[1]))


def tied(rows: Rows) -> np.ndarray:
    """(N,) whether two labels of a row are the likeliest alike."""
    found = matrix(rows, names(rows)) if COLUMN in rows.table.column_names else None
    if found is None or found[0].shape[1] < 2:
        return np.zeros(len(rows), bool)
    top = np.sort(found[0], axis=1)[:, -2:]
    result: np.ndarray = found[1] & (top[:, 1] - top[:, 0] < SAME)
    return result


def alpha(rows: Rows) -> float:
    """Krippendorff's alpha of the votes of rows with one label each; nan where there is none to tell."""
    if VOTES not in rows.table.column_names or pa.types.is_list(rows.table["label"].type):
        return float("nan")
    found = matrix(rows, names(rows))
    assert found is not None
    votes = pac.fill_null(rows.table[VOTES], 0).to_numpy()
    return agreement.alpha(np.rint(found[0] * votes[:, None]))


def findings(sets: Mapping[str, Rows], roles: Sequence[str]) -> Iterator[Finding]:
    """Rows whose votes are tied, and how far annotators agree."""
    for name, rows in sets.items():
        if not pa.types.is_list(rows.table["label"].type):
            message = "rows with several likeliest labels: the first of them counts where one label is scored"
            yield from at("ties", "note", name, rows, tied(rows), message, roles)
        if not np.isnan(found := alpha(rows)):
            votes = pac.fill_null(rows.table[VOTES], 0).to_numpy()
            degree = f"Krippendorff's alpha {found:.3f} (1: wholly; 0: by chance)"
            message = f"rows with several votes, which agree by {degree}"
            severity: Severity = "warning" if found < POOR else "note"
            yield Finding("agreement", severity, name, int((votes > 1).sum()), message)


def dumped(sets: Mapping[str, Rows]) -> dict[str, Any]:
    """What `results.json` holds of them; empty where there are none."""
    found = {name: alpha(rows) for name, rows in sets.items()}
    known = {name: value for name, value in found.items() if not np.isnan(value)}
    return {"agreement": {"krippendorff_alpha": known}} if known else {}
