"""Extractive question answering: the answer is a part of the context, or there is none (SQuAD 2.0)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pac

from bert_ft.config import schema
from bert_ft.config.task import Task
from bert_ft.data.columns import refuse
from bert_ft.data.finding import Finding
from bert_ft.data.rows import Canonical, Rows
from bert_ft.data.sources import Raw, Reader
from bert_ft.errors import InputError
from bert_ft.families.base import Adapter
from bert_ft.families.features import Features
from bert_ft.families.qa import checks, choices, decoding, encoding, squad
from bert_ft.families.qa import golds as gold
from bert_ft.families.qa import options as own
from bert_ft.families.qa import rows as reading
from bert_ft.metrics import answers as others
from bert_ft.metrics import choice
from bert_ft.metrics import squad as scores

if TYPE_CHECKING:
    import torch

    from bert_ft.report.scored_set import Scored


class ExtractiveQa(Adapter):
    """The span of a context that answers a question: any `AutoModelForQuestionAnswering`.

    Canonical rows: id, question, context (strings), answers (list of strings, empty where the context has no
    answer, null where a row has no gold), answer_starts (list of int64, -1 where an answer was not found in
    the context). Features are windows, `recipe.batch_size` counts windows, and the loss is the mean of
    start's and end's cross-entropy over the window's real tokens, as in BERT's run_squad.py: the loss inside
    `transformers` takes the padding into its softmax, so that there a row's loss depends on its neighbours.
    """

    family: ClassVar[str] = "qa"
    Options: ClassVar[type[schema.Options]] = own.Options
    head: ClassVar[str] = "AutoModelForQuestionAnswering"
    roles: ClassVar[Mapping[str, bool]] = {
        "id": True,
        "question": True,
        "context": True,
        "answers": True,
        "answer_start": False,
        "is_impossible": False,
        "title": False,
    }
    spare: ClassVar[tuple[str, ...]] = (*reading.BESIDE, "title")
    group_by: ClassVar[str | None] = "context"
    target: ClassVar[str] = "answers"
    texts: ClassVar[tuple[str, ...]] = ("question", "context")
    readers: ClassVar[Mapping[str, Reader]] = {".json": squad.read, ".jsonl": squad.read}
    metric_scale: ClassVar[int] = 100
    scores_answers: ClassVar[bool] = True
    pipeline_tag: ClassVar[str | None] = "question-answering"

    @property
    def options(self) -> own.Options:
        """The task's table of this family."""
        assert isinstance(self.task.options, own.Options)
        return self.task.options

    @property
    def windowed(self) -> bool:
        return True

    # --- rows

    @classmethod
    def canonical(cls, raw: Raw, task: Task, columns: Mapping[str, str], labelled: bool) -> Canonical:
        if labelled:
            reading.refuse_one_context(raw, task, columns["context"])
        named = {role: column for role, column in columns.items() if role in cls.roles}
        return reading.canonical(raw.table, named, raw.where, labelled)

    def check(self, name: str, rows: Rows) -> None:
        kind = "with" if self.options.no_answer else "without"
        known = self.options.metric_names(self.task.data.problem_type)
        self.require_metrics(known, f"not one of questions {kind} no_answer")
        none = pac.equal(pac.list_value_length(rows.table["answers"]), 0)
        if not self.options.no_answer:
            ids = rows.table["id"]
            n = pac.sum(none).as_py()
            refuse(
                none,
                rows.place,
                lambda row: f"question '{ids[row]}' has no answer, as {n:,} of {len(rows):,}",
                "--set no_answer=true, as for SQuAD 2.0",
            )

    def checks(self, sets: Mapping[str, Rows]) -> Iterable[Finding]:
        return checks.of_rows(sets, self.task.metric.compute, self.options)

    def encoded(self, name: str, rows: Rows, parts: Iterable[Features]) -> list[Finding]:
        needed = []
        learned = []
        for features in parts:
            _, first = np.unique(features.values["row"], return_index=True)
            needed.append(features.values["needed"][first])
            whole = features.values["start_positions"] != features.values["cls"]
            learned.append(np.bincount(features.values["row"], whole) > 0)
        said = np.concatenate(needed)
        about = (rows.table["id"], self.options, self.task.recipe.max_length)
        if name != "train":
            return checks.of_lengths(name, said, *about)
        unlearned = (gold.golds(rows)[:, 0] >= 0) & ~np.concatenate(learned)
        return checks.of_training(name, unlearned, said, *about)

    def prepare(self, train: Rows) -> None:
        for key in ("label_smoothing", "class_weights"):
            if getattr(self.task.recipe, key):
                raise InputError(
                    "the qa family does not have it", where=f"recipe.{key}", remedy="leave it out"
                )
        if not gold.weights(train).any():
            raise InputError(
                f"no answer is where its answer_start says, that of question '{train.table['id'][0]}' first",
                where=train.where,
                remedy="offsets are characters of the context, from 0 on",
            )

    def rows(self, inputs: Sequence[Any]) -> Rows:
        out: dict[str, list[Any]] = {"id": [], "question": [], "context": []}
        for number, item in enumerate(inputs, 1):
            if not isinstance(item, Mapping):
                pair = isinstance(item, Sequence) and not isinstance(item, str) and len(item) == 2
                item = dict(zip(("question", "context"), item, strict=True)) if pair else {}
            for key in ("question", "context"):
                if not isinstance(item.get(key), str) or not item[key].strip():
                    raise InputError(
                        f"no {key} in it: a (question, context) is wanted for every input",
                        where=f"input {number}",
                    )
            for key, column in out.items():
                column.append(None if item.get(key) is None else str(item[key]))
        table = pa.table({key: pa.array(column, pa.string()) for key, column in out.items()})
        table = table.append_column("answers", pa.nulls(len(inputs), pa.list_(pa.string())))
        return Rows(
            table.append_column("answer_starts", pa.nulls(len(inputs), pa.list_(pa.int64()))), "inputs"
        )

    @property
    def inputs(self) -> dict[str, bool]:
        return {"id": False, "question": True, "context": True}

    def input(self, values: Mapping[str, Any]) -> Any:
        return values

    def references(self, rows: Rows) -> np.ndarray:
        """(N,) lists of gold texts."""
        golds = rows.table["answers"].to_pylist()
        out = np.empty(len(golds), object)
        out[:] = golds
        return out

    # --- the model's side

    @classmethod
    def has_labels(cls, task: Task) -> bool:
        return False

    @classmethod
    def task_of_head(cls, config: Any, labels: Sequence[str]) -> dict[str, Any]:
        return {}

    def config(self) -> dict[str, Any]:
        return {"num_labels": 2}

    def encode(self, rows: Rows, tokenizer: Any, max_length: int) -> Features:
        questions = rows.table["question"].to_pylist()
        contexts = rows.table["context"].to_pylist()
        answers = gold.answers(rows, contexts)
        features = encoding.encode(
            tokenizer, questions, contexts, gold.golds(rows), max_length, self.options, answers
        )
        features.weights = gold.weights(rows)[features.values["row"]]
        features.values["weight"] = features.weights.astype(np.float32)
        return features

    def logits(self, outputs: Any) -> torch.Tensor:
        """(B, L, 2): start and end."""
        import torch

        return torch.stack([outputs.start_logits, outputs.end_logits], dim=-1)

    def loss(self, logits: torch.Tensor, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        import torch.nn.functional as F

        logits = logits.float().masked_fill(~batch["mask"][..., None], float("-inf"))
        start, end = (
            F.cross_entropy(logits[..., side], batch[key], reduction="none")
            for side, key in enumerate(("start_positions", "end_positions"))
        )
        return (start + end) / 2 * batch["weight"]

    def decode(self, logits: np.ndarray, features: Features, rows: Rows) -> dict[str, np.ndarray]:
        """`spans` (N, n, 2), characters, the best first; `scores` (N, n), start plus end logit; `null` (N,);
        `needed` (N,), as of the features; `prediction` (N,): texts, empty where the null odds are above the
        threshold."""
        found, score, null = decoding.n_best(
            logits,
            features,
            len(rows),
            n=self.options.n_best,
            max_answer_length=self.options.max_answer_length,
        )
        needed = np.zeros(len(rows), np.int64)
        needed[features.values["row"]] = features.values["needed"]
        columns = {"spans": found, "scores": score, "null": null, "needed": needed}
        return columns | {"prediction": self._texts(columns, rows)}

    # --- predictions

    @classmethod
    def report(cls, task: Task) -> type[Scored]:
        from bert_ft.families.qa.report import Answers

        return Answers

    @property
    def threshold(self) -> float:
        """Null odds above it mean that there is no answer: 0, or what `tune` found."""
        return float(self.tuned.get("null_threshold", 0.0))

    def _odds(self, predictions: Mapping[str, np.ndarray]) -> np.ndarray:
        """(N,) score of no answer less that of the best span (Devlin et al. 2019, section 4.3)."""
        odds: np.ndarray = predictions["null"].astype(np.float64) - predictions["scores"][:, 0].astype(
            np.float64
        )
        return odds

    def _empty(self, predictions: Mapping[str, np.ndarray]) -> np.ndarray:
        """(N,) whether the answer is that there is none."""
        none: np.ndarray = predictions["spans"][:, 0, 0] < 0
        return none | (self._odds(predictions) > self.threshold) if self.options.no_answer else none

    def _texts(
        self, predictions: Mapping[str, np.ndarray], rows: Rows, *, forced: bool = False
    ) -> np.ndarray:
        """(N,) the best answers; `forced`: also where no answer is the better one."""
        contexts = rows.table["context"].to_pylist()
        best = predictions["spans"][:, 0]
        empty = best[:, 0] < 0 if forced else self._empty(predictions)
        cut = [
            context[a:b] if a >= 0 else "" for context, (a, b) in zip(contexts, best.tolist(), strict=True)
        ]
        return np.where(empty, "", np.array(cut, object))

    @property
    def _tuned_by(self) -> str:
        """The key of `scores.raw_scores` that the threshold is tuned by."""
        return "exact" if "exact" in self.task.best_metric[1] else "f1"

    def tune(self, predictions: Mapping[str, np.ndarray], rows: Rows) -> None:
        """The threshold with the best F1 (exact match, where `metric.best` says so), as evaluate-v2.0.py
        finds it."""
        if not self.options.no_answer or rows.table["answers"].null_count:
            return
        texts = self._texts(predictions, rows, forced=True)
        golds = self.references(rows)
        raw = scores.raw_scores(texts, golds)[self._tuned_by]
        has, answered = (np.array([bool(item) for item in items]) for items in (golds, texts))
        found = scores.null_threshold(raw, has, answered, self._odds(predictions))
        self.tuned["null_threshold"] = found

    @property
    def chosen_by(self) -> Sequence[str]:
        return ["spans", "scores", "null"]

    def candidate(self, predictions: Mapping[str, np.ndarray], rows: Rows) -> choice.Candidate | None:
        texts = self._texts(predictions, rows, forced=True)
        if not self.options.no_answer:
            return choices.of_answers(texts, self.references(rows), self.task.metric.compute)
        return choices.of_null(texts, self.references(rows), self._odds(predictions), self._tuned_by)

    def score(self, predictions: Mapping[str, np.ndarray], rows: Rows) -> dict[str, float]:
        """`f1`, `exact_match` (0 to 100). With no_answer: at threshold 0, `HasAns_` and `NoAns_` apart;
        `best_`: at the best threshold for these rows; `tuned_`: at the model's own, once there is one."""
        if rows.table["answers"].null_count or not len(rows):
            return {}
        ids = rows.table["id"].to_pylist()
        golds = self.references(rows)
        answers = dict(zip(ids, golds, strict=True))
        texts = dict(zip(ids, self._texts(predictions, rows, forced=True), strict=True))
        if not self.options.no_answer:
            found = scores.squad(texts, answers)
            for name in others.named(self.task.metric.compute):
                found |= others.score(name, texts, answers)
            return {name: found[name] for name in self.task.metric.compute}
        odds = dict(zip(ids, self._odds(predictions).tolist(), strict=True))
        found = scores.squad_v2(texts, answers, odds, 0.0)
        named = {"f1": found.pop("f1"), "exact_match": found.pop("exact")}
        named |= {name: value for name, value in found.items() if not name.endswith("total")}
        if "null_threshold" in self.tuned:
            tuned = scores.squad_v2(texts, answers, odds, self.threshold)
            named |= {"tuned_f1": tuned["f1"], "tuned_exact_match": tuned["exact"]}
        return named

    def warnings(self, predictions: Mapping[str, np.ndarray], rows: Rows) -> list[str]:
        about = (rows.table["id"], self.options, self.task.recipe.max_length)
        limits = [found.statement for found in checks.of_lengths("", predictions["needed"], *about)]
        if len(rows) < 2 or not self._empty(predictions).all():
            return limits
        return [
            *limits,
            "every prediction is that there is no answer: the training has hardly begun, or the threshold "
            "is off",
        ]

    def _probabilities(self, predictions: Mapping[str, np.ndarray]) -> np.ndarray:
        """(N, n + 1) softmax over the n best spans and, last, no answer (0 where each question has one)."""
        null = predictions["null"] if self.options.no_answer else np.full_like(predictions["null"], -np.inf)
        both = np.concatenate([predictions["scores"], null[:, None]], axis=1).astype(np.float64)
        exp = np.exp(both - both.max(axis=1, keepdims=True, initial=-1e300))
        out: np.ndarray = exp / np.maximum(exp.sum(axis=1, keepdims=True), 1e-300)
        return out

    def _scores(self, predictions: Mapping[str, np.ndarray]) -> np.ndarray:
        """(N,) how likely the answer is among the n best and no answer."""
        probability = self._probabilities(predictions)
        return np.where(self._empty(predictions), probability[:, -1], probability[:, 0])

    def rated(self, predictions: Mapping[str, np.ndarray], rows: Rows) -> tuple[np.ndarray, np.ndarray]:
        """Of the answers as they are given; right is one that is a gold answer, by the task's exact match."""
        texts, golds = self._texts(predictions, rows), self.references(rows)
        exact = choices.exact(texts, golds, self.options.no_answer, self.task.metric.compute)
        return self._scores(predictions), exact

    def lines(self, predictions: Mapping[str, np.ndarray], rows: Rows) -> Iterator[dict[str, Any]]:
        texts = self._texts(predictions, rows).tolist()
        empty = self._empty(predictions)
        score = self.calibrated(self._scores(predictions)).tolist()
        places = predictions["spans"][:, 0].tolist()
        odds = self._odds(predictions).tolist()
        for i, key in enumerate(rows.table["id"].to_pylist()):
            start, end = (None, None) if empty[i] else places[i]
            line = {"id": key, "prediction": texts[i], "start": start, "end": end, "score": score[i]}
            yield line | ({"null_odds": odds[i]} if self.options.no_answer else {})

    def files(self, predictions: Mapping[str, np.ndarray], rows: Rows) -> dict[str, Any]:
        """The submission (id -> text), the n best (id -> text and probability), and the null odds (id ->
        number)."""
        ids = rows.table["id"].to_pylist()
        files: dict[str, Any] = {
            ".official": dict(zip(ids, self._texts(predictions, rows).tolist(), strict=True))
        }
        probability = self._probabilities(predictions).tolist()
        contexts = rows.table["context"].to_pylist()
        places = predictions["spans"].tolist()
        files[".nbest"] = {}
        for key, context, found, p in zip(ids, contexts, places, probability, strict=True):
            # p has one more, for no answer
            best = [
                {"text": context[a:b], "probability": value}
                for (a, b), value in zip(found, p, strict=False)
                if a >= 0
            ]
            if self.options.no_answer:
                best.append({"text": "", "probability": p[-1]})
                best.sort(key=itemgetter("probability"), reverse=True)
            files[".nbest"][key] = best
        if self.options.no_answer:
            files[".null_odds"] = dict(zip(ids, self._odds(predictions).tolist(), strict=True))
        return files

    def decode_raw(self, predictions: Mapping[str, np.ndarray], rows: Rows) -> Iterable[dict[str, Any]]:
        for line in self.lines(predictions, rows):
            yield {key: value for key, value in line.items() if key != "id" or value is not None}
