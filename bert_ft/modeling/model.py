"""An encoder with a head and its adapter: ready to score rows and to answer raw inputs."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bert_ft import display
from bert_ft.data.rows import Rows
from bert_ft.errors import InputError, did_you_mean
from bert_ft.families.base import Adapter
from bert_ft.families.features import Features
from bert_ft.modeling import calibrating
from bert_ft.modeling.encoder import Encoder
from bert_ft.modeling.saved_task import FORM, SAVED

BLOCK = 2048  # rows encoded, scored and decoded together: what bounds the memory of evaluation and prediction


@dataclass
class Model(Encoder):
    """What `bert_ft.load` returns for a model folder, and what a run trains: an encoder with a head.

    Attributes:
        adapter: what turns rows into features, and logits into predictions and metrics.
        scorers: the user's own metrics, beside the task's.
        new: the names of the parameters that its checkpoint did not have.
    """

    adapter: Adapter = field(kw_only=True)
    scorers: Sequence[Callable[[Any, Any], dict[str, float]]] = ()
    new: frozenset[str] = frozenset()

    def encode(self, rows: Rows, of: int | None = None) -> Features:
        """Rows (a part of a set of `of` rows) as features, at most `max_length` tokens each."""
        from bert_ft.engine import feature_cache

        return feature_cache.encode(self.adapter, rows, self.tokenizer, self.max_length, of)

    def blocks(self, rows: Rows, counts: Counter[str] | None = None) -> Iterator[tuple[Rows, Features]]:
        """The rows in parts that are encoded, scored and decoded apart, each with its features, whose counts
        are added to `counts`."""
        for part in self.adapter.blocks(rows, BLOCK):
            features = self.encode(part, of=len(rows))
            if counts is not None:
                counts.update(features.counts)
            yield part, features

    def infer(
        self, rows: Rows, blocks: Iterable[tuple[Rows, Features]] | None = None
    ) -> dict[str, np.ndarray]:
        """Predictions for every row, in the order of the rows."""
        decoded = [
            self.decode(self.logits(features), features, part)
            for part, features in blocks or self.blocks(rows)
        ]
        return {name: np.concatenate([columns[name] for columns in decoded]) for name in decoded[0]}

    def logits(self, features: Features) -> np.ndarray:
        """What the network gives: (N, C), or (T, C) of the flat tokens."""
        from bert_ft.engine import inference

        batching = self.adapter.task.batching
        return inference.predict(
            self.network,
            self.adapter,
            features,
            self.accelerator,
            pad=self.tokenizer.pad_token_id,
            tokens=batching.eval_tokens,
            sharing=self.sharing,
            deduplicate=batching.deduplicate,
            lean=batching.lean,
        )

    def decode(self, logits: np.ndarray, features: Features, rows: Rows) -> dict[str, np.ndarray]:
        """Predictions of all rows from what the network gives for their features."""
        decoded = self.adapter.decode(calibrating.applied(self.adapter, logits), features, rows)
        return calibrating.by_label(self.adapter, decoded)

    def score(self, predictions: Mapping[str, np.ndarray], rows: Rows) -> dict[str, float]:
        """The task's metrics and the user's own; empty where rows have no labels."""
        metrics = self.adapter.score(predictions, rows)
        if metrics or not self.adapter.task.metric.compute:
            for scorer in self.scorers:
                found = scorer(predictions["prediction"], self.adapter.references(rows))
                if twice := found.keys() & metrics.keys():
                    raise InputError(
                        f"two metrics are called '{min(twice)}'",
                        where="metrics",
                        remedy="give yours a name: metrics={'mine': ...}",
                    )
                metrics |= found
        return metrics

    def predict(self, inputs: Any, columns: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
        """Answers raw inputs.

        Args:
            inputs: what the family takes: a text; or a list of texts, of (text, text_pair), of (question,
                context), or of dicts with the task's columns; a dict of lists, a Dataset or a pandas frame.
            columns: role -> column of these, where they are not called as in the task.
        Returns:
            one dict an input, as the adapter's `decode_raw` makes it: `prediction` and `probabilities` by
            label name, `entities`, or an answer.
        Warns:
            UserWarning: inputs were cut, or much of them is not in the vocabulary.
        """
        if hasattr(inputs, "iloc"):  # a pandas frame or series
            inputs = inputs.to_dict("records") if hasattr(inputs, "columns") else inputs.tolist()
        if isinstance(inputs, Mapping):
            known = (self._column(role, columns or {}) for role in self.adapter.inputs)
            table = {name: inputs[name] for name in known if name in inputs}
            if table and all(isinstance(column, list) for column in table.values()):
                if len({len(column) for column in table.values()}) > 1:
                    raise InputError("these columns are not equally long", where=", ".join(table))
                inputs = [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]
        several = [inputs] if isinstance(inputs, (str, Mapping)) else list(inputs)
        if not several:
            return []
        counts: Counter[str] = Counter()
        answers = self.answer(self.rows(several, columns or {}), counts)
        for line in display.not_read(counts, self.max_length):
            warnings.warn(line, stacklevel=2)
        return answers

    def answer(self, rows: Rows, counts: Counter[str] | None = None) -> list[dict[str, Any]]:
        """An answer a row; `counts` as of `blocks`."""
        return list(self.adapter.decode_raw(self.infer(rows, self.blocks(rows, counts)), rows))

    def rows(self, inputs: Sequence[Any], columns: Mapping[str, str]) -> Rows:
        """Raw inputs as canonical rows; arguments as of `predict`. Raises InputError: the adapter can't take
        one."""
        return self.adapter.rows(
            [self._input(item, number, columns) for number, item in enumerate(inputs, 1)]
        )

    def _column(self, role: str, columns: Mapping[str, str]) -> str:
        return columns.get(role) or self.adapter.task.data.columns.get(role, role)

    def _input(self, item: Any, number: int, columns: Mapping[str, str]) -> Any:
        """A dict, or an array, as the adapter takes it."""
        if not isinstance(item, Mapping):
            return item.tolist() if hasattr(item, "tolist") else item
        values = {}
        for role, needed in self.adapter.inputs.items():
            column = self._column(role, columns)
            if item.get(column) is not None:
                values[role] = item[column]
            elif needed:
                raise InputError(
                    f"no '{column}'", where=f"input {number}", remedy=did_you_mean(column, map(str, item))
                )
        return self.adapter.input(values)

    def __call__(self, *inputs: Any) -> dict[str, Any]:
        """The answer to one input: `model(text)`, `model(text, text_pair)`, `model(question, context)`."""
        return self.predict([inputs[0] if len(inputs) == 1 else inputs])[0]

    def describe(self) -> None:
        """Writes into the model's config what prediction needs beyond it, so that the saved folder alone has
        it all; the tokenizer will truncate in a pipeline where we did."""
        task = self.adapter.task
        parts: dict[str, Any] = {"family": True, "recipe": SAVED["recipe"], "data": {"problem_type"}}
        if task.states_options:
            parts["options"] = True
        kept = task.model_dump(include=parts, exclude_none=True)
        columns = {role: name for role, name in task.data.columns.items() if role in self.adapter.inputs}
        kept["data"] |= {"columns": columns} | task.data.model_dump(include=FORM, exclude_defaults=True)
        self.network.config.bert_ft = {"task": kept, "tuned": self.adapter.tuned}
        self.tokenizer.model_max_length = task.recipe.max_length
        if (side := self.adapter.truncation_side) is not None:
            self.tokenizer.truncation_side = side
            self.tokenizer.init_kwargs["truncation_side"] = side  # which is what is saved
