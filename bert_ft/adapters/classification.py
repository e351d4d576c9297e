"""Classification of single texts and pairs, and regression: any `AutoModelForSequenceClassification`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pac

from bert_ft import metrics
from bert_ft.adapters import tokenizing
from bert_ft.adapters.base import Adapter, Features
from bert_ft.data import Rows, targets, with_notes
from bert_ft.data.checks import Finding
from bert_ft.data.sources import Raw
from bert_ft.errors import InputError, did_you_mean
from bert_ft.metrics import classification as scores
from bert_ft.schema import Label
from bert_ft.task import Task

if TYPE_CHECKING:
    import torch


BINARY = ("f1", "precision", "recall")
LONGEST = 10_000_000  # bytes of a text: ten books


class Classification(Adapter):
    """One label, or one number, for a text or a pair of texts.

    Canonical rows: text (string), text_pair (string, where the task has one), label (the label's name as a string;
    float64 for regression; null where a row has none).
    """

    family: ClassVar[str] = "classification"
    head: ClassVar[str] = "AutoModelForSequenceClassification"
    roles: ClassVar[Mapping[str, bool]] = {"text": True, "text_pair": False, "label": True}

    def __init__(self, task: Task, labels: Sequence[Label] = ()) -> None:
        super().__init__(task, labels)
        self.regression = task.data.problem_type == "regression"
        self.class_weights: np.ndarray | None = None

    # --- rows -----------------------------------------------------------------------------------------------------

    @property
    def inputs(self) -> dict[str, bool]:
        return {"text": True, "text_pair": "text_pair" in self.task.data.columns}

    @classmethod
    def canonical(cls, raw: Raw, task: Task, columns: Mapping[str, str], labelled: bool) -> pa.Table:
        table, out = raw.table, {}
        for role in ("text", "text_pair"):
            if role in columns:
                out[role] = _texts(table[columns[role]], columns[role], raw.where)
        column = columns["label"]
        if column not in table.column_names:
            kind = pa.float64() if task.data.problem_type == "regression" else pa.string()
            out["label"] = pa.nulls(len(table), kind)
        elif task.data.problem_type == "regression":
            out["label"] = _numbers(table[column], column, raw.where)
            if task.run.data_dir is not None:  # as STS-B is on the hub, so that both give the same rows
                out["label"] = _numbers(out["label"].cast(pa.float32()), column, raw.where)
            if not labelled and pac.all(pac.equal(out["label"], -1)).as_py():  # the hub's mark of a hidden score
                out["label"] = pa.nulls(len(table), pa.float64())
        else:
            out["label"] = _names(table[column], raw.class_names.get(column), task, column, raw.where)
        if labelled and out["label"].null_count:
            row = pac.index(pac.is_null(out["label"]), True).as_py()
            raise InputError(f"{out['label'].null_count} rows have no label", where=f"{raw.where}, row {row + 1}",
                             remedy=f"give column '{column}' a value there, or remove the rows")  # fmt: skip
        names = [task.data.label_names.get(name, name) for name in raw.class_names.get(column, [])]
        table = pa.table(out).replace_schema_metadata({"labels": json.dumps(names)} if names else None)
        return with_notes(table, _near(out["label"]) if pa.types.is_string(out["label"].type) else [])

    @classmethod
    def find_labels(cls, train: Rows, task: Task) -> list[Label]:
        if task.data.problem_type == "regression":
            return []
        if task.data.labels is not None:
            return list(task.data.labels)
        if b"labels" in (train.table.schema.metadata or {}):  # the source has names and an order of its own
            return list(dict.fromkeys(json.loads(train.table.schema.metadata[b"labels"])))
        found = sorted(pac.unique(train.table["label"]).to_pylist())
        if all(re.fullmatch("0|-?[1-9][0-9]*", name) for name in found):
            return sorted(int(name) for name in found)  # 2 before 10
        fraction = next((name for name in found if re.fullmatch(r"-?\d*\.\d*[1-9]\d*", name)), "")
        if fraction and re.fullmatch(r"[\d.-]+", "".join(found)):
            raise InputError(f"the labels are numbers with a fraction, such as {fraction}", where=train.where,
                             remedy="--regression predicts numbers; data.labels names them as classes")  # fmt: skip
        if set(found) <= {"True", "False"}:
            return [name == "True" for name in found]
        if len(found) > max(100, len(train) // 2):
            message = f"{len(found):,} different labels in {len(train):,} rows"
            remedy = 'is this the label column? For numbers set data.problem_type = "regression"'
            raise InputError(message, where=train.where, remedy=remedy)
        return found

    def check(self, name: str, rows: Rows) -> None:
        if self.regression:
            return
        known = self.names
        if len(known) < 2:
            raise InputError(f"only one label ('{known[0]}')", where=rows.where, remedy="two are needed to learn from")
        ids = pac.index_in(rows.table["label"], value_set=pa.array(known))
        strange = pac.and_(pac.is_null(ids), pac.is_valid(rows.table["label"]))
        if (row := pac.index(strange, True).as_py()) >= 0:
            label = rows.table["label"][row].as_py()
            source = "data.labels does not name it" if self.task.data.labels else "the training rows do not have it"
            raise InputError(f"label '{label}': {source}", where=rows.place(row), remedy=did_you_mean(label, known))

    def checks(self, sets: Mapping[str, Rows]) -> Iterable[Finding]:
        if self.regression:
            return targets.of_numbers(sets, self.target)
        return targets.of_classes(sets, self.names, self.texts, self.target)

    def prepare(self, train: Rows) -> None:
        positive = self.task.metric.positive
        if positive is not None and str(positive) not in self.names:
            raise InputError(
                f"metric.positive = '{positive}' is not a label", remedy=did_you_mean(str(positive), self.names)
            )
        wanted = list(scores.REGRESSION_METRICS if self.regression else scores.CLASS_METRICS)
        for name in self.task.metric.compute:
            if name not in wanted:
                raise InputError(f"metric '{name}' is not one of {self.task.data.problem_type}", where="metric.compute",
                                 remedy=did_you_mean(name, wanted))  # fmt: skip
            if name in BINARY and len(self.labels) != 2:
                message = f"metric '{name}' needs two labels, here are {len(self.labels)}"
                raise InputError(message, where="metric.compute", remedy=f"use {name}_macro")
        weights = self.task.recipe.class_weights
        if weights is None:
            return
        if self.regression:
            raise InputError("regression has no classes to weigh", where="recipe.class_weights")
        if weights == "balanced":  # n / (k * n_c), as scikit-learn's class_weight="balanced"
            counts = np.bincount(self._ids(train), minlength=len(self.labels))
            if not counts.all():
                absent = self.names[int(np.argmin(counts))]
                raise InputError(
                    f"label '{absent}' has no training row to take a weight from", where="recipe.class_weights"
                )
            self.class_weights = len(train) / (len(self.labels) * counts)
            return
        if missing := set(self.names) ^ set(weights):
            raise InputError(f"weights and labels differ in '{sorted(missing)[0]}'", where="recipe.class_weights",
                             remedy="give one weight to each of: " + ", ".join(self.names))  # fmt: skip
        self.class_weights = np.array([weights[name] for name in self.names])

    def rows(self, inputs: Sequence[Any]) -> Rows:
        pairs = not isinstance(inputs[0], str) if inputs else False
        kind = pa.float64() if self.regression else pa.string()
        for number, item in enumerate(inputs):
            fine = isinstance(item, str) if not pairs else (len(item) == 2 and all(isinstance(t, str) for t in item))
            if not fine:
                raise InputError(
                    "a text, or a (text, text_pair), is wanted for every input", where=f"input {number + 1}"
                )
        columns = list(zip(*inputs, strict=True)) if pairs else [inputs]
        named = dict(zip(("text", "text_pair"), (pa.array(c, pa.string()) for c in columns), strict=False))
        return Rows(pa.table({**named, "label": pa.nulls(len(inputs), kind)}), "inputs")

    def _ids(self, rows: Rows) -> np.ndarray:
        """(N,) int64 label ids; -1 where a row has none."""
        ids = pac.index_in(rows.table["label"], value_set=pa.array(self.names, pa.string()))
        numbers: np.ndarray = pac.fill_null(ids, -1).to_numpy().astype(np.int64)
        return numbers

    def references(self, rows: Rows) -> np.ndarray:
        """(N,) what predictions are scored against: label ids, or numbers."""
        return rows.table["label"].to_numpy() if self.regression else self._ids(rows)

    # --- the model's side -----------------------------------------------------------------------------------------

    def config(self) -> dict[str, Any]:
        if self.regression:
            return {"num_labels": 1, "problem_type": "regression"}
        return {
            "num_labels": len(self.labels),
            "problem_type": "single_label_classification",
            "id2label": dict(enumerate(self.names)),
            "label2id": {name: i for i, name in enumerate(self.names)},
        }

    def encode(self, rows: Rows, tokenizer: Any, max_length: int) -> Features:
        pairs = rows.table["text_pair"].to_pylist() if "text_pair" in rows.table.column_names else None
        offsets, tokens, counts = tokenizing.encode(tokenizer, rows.table["text"].to_pylist(), pairs, max_length)
        references = self.references(rows)
        labels = np.nan_to_num(references).astype(np.float32) if self.regression else references
        weights = np.ones(len(rows))
        if self.class_weights is not None:
            weights = np.where(labels >= 0, self.class_weights[labels], 0.0)
        return Features(offsets, tokens, {"labels": labels}, weights, counts)

    def loss(self, logits: torch.Tensor, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        import torch.nn.functional as F

        labels, logits = batch["labels"], logits.float()
        if self.regression:
            return F.mse_loss(logits.squeeze(-1), labels, reduction="none")
        weight = None if self.class_weights is None else logits.new_tensor(self.class_weights)
        smoothing = self.task.recipe.label_smoothing
        return F.cross_entropy(logits, labels, weight=weight, label_smoothing=smoothing, reduction="none")

    def decode(self, logits: np.ndarray, features: Features, rows: Rows) -> dict[str, np.ndarray]:
        """`prediction` (N,): label ids, or numbers; `probabilities` (N, C), float64."""
        scores = logits.astype(np.float64)
        if self.regression:
            return {"prediction": scores[:, 0]}
        exp = np.exp(scores - scores.max(axis=1, keepdims=True))
        return {"prediction": scores.argmax(axis=1), "probabilities": exp / exp.sum(axis=1, keepdims=True)}

    # --- predictions ----------------------------------------------------------------------------------------------

    def score(self, predictions: Mapping[str, np.ndarray], rows: Rows) -> dict[str, float]:
        if rows.table["label"].null_count:
            return {}
        positive = self.task.metric.positive
        if positive is None and not self.regression:  # the task's second label, whatever the order of the head
            positive = (self.task.data.labels or self.labels)[1]
        metric = metrics.load(
            "classification",
            compute=self.task.metric.compute,
            positive=1 if self.regression else self.names.index(str(positive)),
        )
        result = metric.compute(predictions=predictions["prediction"], references=self.references(rows))
        return {name: float(value) for name, value in (result or {}).items()}

    def warnings(self, predictions: Mapping[str, np.ndarray], rows: Rows) -> list[str]:
        found = predictions["prediction"]
        if len(found) < 2 or (found != found[0]).any():
            return []
        what = f"{found[0]:.4g}" if self.regression else f"'{self.names[int(found[0])]}'"
        return [f"every prediction is {what}: the training has collapsed, or hardly begun; another seed, a longer warmup "
                "or a smaller learning rate may help"]  # fmt: skip

    def lines(self, predictions: Mapping[str, np.ndarray], rows: Rows) -> Iterable[dict[str, Any]]:
        labels = rows.table["label"].to_pylist()
        if self.regression:
            for row, (value, label) in enumerate(zip(predictions["prediction"].tolist(), labels, strict=True)):
                yield {"row": row, "prediction": value, "label": label}
            return
        typed = dict(zip(self.names, self.labels, strict=True))
        chosen, probabilities = predictions["prediction"].tolist(), predictions["probabilities"].tolist()
        for row, (k, label, p) in enumerate(zip(chosen, labels, probabilities, strict=True)):
            yield {"row": row, "prediction": self.labels[k], "label": typed.get(label, label),
                   "probabilities": dict(zip(self.names, p, strict=True))}  # fmt: skip


def _texts(column: pa.ChunkedArray, name: str, where: str) -> pa.ChunkedArray:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type) or pa.types.is_null(column.type)
            or pa.types.is_string_view(column.type)):  # fmt: skip
        raise InputError(f"column '{name}' holds {column.type}, not text", where=where,
                         remedy="name the text column: --text COLUMN, or data.columns in the task")  # fmt: skip
    column = column.cast(pa.string())
    sizes = pac.binary_length(column)
    if (size := pac.max(sizes).as_py() or 0) > LONGEST:
        raise InputError(f"column '{name}' holds a text of {size / 1e6:,.0f} MB", remedy="is a quote left open there?",
                         where=f"{where}, row {pac.index(sizes, pac.max(sizes)).as_py() + 1}")  # fmt: skip
    if column.null_count:
        row = pac.index(pac.is_null(column), True).as_py()
        message = f"column '{name}' has no text ({column.null_count} such rows)"
        remedy = 'remove the row, or quote the empty text ("") where it is meant'
        raise InputError(message, where=f"{where}, row {row + 1}", remedy=remedy)
    return column


def _numbers(column: pa.ChunkedArray, name: str, where: str) -> pa.ChunkedArray:
    """float64; a cell that is no finite number is an error with its row."""
    if pa.types.is_float32(column.type) or pa.types.is_float16(column.type):
        column = column.cast(pa.string())  # 3.8 as the source wrote it, not 3.799999952316284
    try:
        numbers = column.cast(pa.float64())
    except pa.ArrowInvalid:
        row = next(i for i, cell in enumerate(column) if not _is_number(cell))
        raise InputError(
            f"column '{name}' has '{column[row]}' where a number is wanted", where=f"{where}, row {row + 1}"
        ) from None
    except pa.ArrowNotImplementedError:
        raise InputError(f"column '{name}' holds {column.type}, not numbers", where=where) from None
    bad = pac.fill_null(pac.invert(pac.is_finite(numbers)), False)
    if (row := pac.index(bad, True).as_py()) >= 0:
        raise InputError(
            f"column '{name}' has {numbers[row]} where a finite number is wanted", where=f"{where}, row {row + 1}"
        )
    return numbers


def _near(column: pa.ChunkedArray) -> list[str]:
    """A line for each two labels that differ in case or white space alone."""
    seen: dict[str, str] = {}
    alike = [(seen.setdefault("".join(name.split()).casefold(), name), name)
             for name in sorted(pac.unique(column.drop_null()).to_pylist())]  # fmt: skip
    return [f"the labels '{a}' and '{b}' differ in case or white space alone; they are kept apart (data.label_names "
            "makes one of them)" for a, b in alike if a != b]  # fmt: skip


def _is_number(cell: pa.Scalar) -> bool:
    try:
        cell.cast(pa.float64())
    except pa.ArrowInvalid:
        return False
    return True


def _names(column: pa.ChunkedArray, codes: list[str] | None, task: Task, name: str, where: str) -> pa.ChunkedArray:
    """Label names as strings. Codes become names by the source's own table; -1 there means that a row has no label."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
        kind = column.type
    if pa.types.is_floating(kind):
        whole = column.cast(pa.int64(), safe=False)
        if pac.any(pac.fill_null(pac.not_equal(whole.cast(kind), column), False)).as_py():
            row = pac.index(pac.fill_null(pac.not_equal(whole.cast(kind), column), False), True).as_py()
            message = f"column '{name}' has {column[row]}: a number with a fraction is no label"
            remedy = 'for numbers set data.problem_type = "regression"'
            raise InputError(message, where=f"{where}, row {row + 1}", remedy=remedy)
        column, kind = whole, whole.type
    if codes is not None and pa.types.is_integer(kind):
        ids = pac.if_else(pac.less(column, 0), pa.scalar(None, kind), column)
        column, kind = (
            pa.chunked_array([pac.take(pa.array(codes), chunk) for chunk in ids.chunks], pa.string()),
            pa.string(),
        )
    if pa.types.is_boolean(kind):
        column = pac.if_else(column, "True", "False")
    elif not (pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)
              or pa.types.is_string_view(kind) or pa.types.is_null(kind)):  # fmt: skip
        raise InputError(f"column '{name}' holds {kind}, not labels", where=where, remedy="name it: --label COLUMN")
    column = column.cast(pa.string())
    mapping = task.data.label_names
    if mapping:
        found = pac.index_in(column, value_set=pa.array(list(mapping)))
        named = pac.take(
            pa.array(list(mapping.values())), found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found
        )
        column = pa.chunked_array([pac.coalesce(named, column.combine_chunks())])
    return column
