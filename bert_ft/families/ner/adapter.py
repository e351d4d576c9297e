"""Named entities: a tag for every word, however long its sentence, with any
`AutoModelForTokenClassification`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pac

from bert_ft.config import schema
from bert_ft.config.schema import Label
from bert_ft.config.task import Task
from bert_ft.data import columns as cells
from bert_ft.data.rows import PLACES, Canonical, Rows
from bert_ft.data.sources import Raw, Reader
from bert_ft.errors import InputError, did_you_mean
from bert_ft.families import coverage, fast_tokenizer, tokenization
from bert_ft.families.base import Adapter
from bert_ft.families.features import Features, ranges
from bert_ft.families.ner import options as own
from bert_ft.families.ner import schemes, tagged, words
from bert_ft.families.ner.encoding import windows
from bert_ft.families.ner.formats.readers import READERS
from bert_ft.metrics import entities

if TYPE_CHECKING:
    import torch

    from bert_ft.report.scored_set import Scored


class Ner(Adapter):
    """A tag a word.

    Canonical rows: tokens (list of strings), tags (list of strings, IOB2; null where a row has none),
    document (int32, where the source has documents); of raw text also text, starts and ends (lists of int64,
    characters of each word).
    """

    family: ClassVar[str] = "ner"
    Options: ClassVar[type[schema.Options]] = own.Options
    head: ClassVar[str] = "AutoModelForTokenClassification"
    roles: ClassVar[Mapping[str, bool]] = {"tokens": True, "tags": True, "document": False, "sentence": False}
    target: ClassVar[str] = "tags"
    texts: ClassVar[tuple[str, ...]] = ("tokens",)
    readers: ClassVar[Mapping[str, Reader]] = READERS
    pipeline_tag: ClassVar[str | None] = "token-classification"

    @property
    def options(self) -> own.Options:
        """The task's table of this family."""
        assert isinstance(self.task.options, own.Options)
        return self.task.options

    # --- rows

    @classmethod
    def canonical(cls, raw: Raw, task: Task, columns: Mapping[str, str], labelled: bool) -> Canonical:
        out, notes = tagged.canonical(raw, task, columns, labelled)
        document = columns.get("document", "document")
        if document in raw.table.column_names:
            changes = np.zeros(len(raw.table), bool)
            for name in {document, "file"} & set(raw.table.column_names):
                changes[1:] |= np.diff(cells.codes(raw.table[name])) != 0
            out["document"] = pa.array(np.cumsum(changes), pa.int32())
        out |= {name: raw.table[name] for name in PLACES if name in raw.table.column_names}
        return Canonical(pa.table(out), notes)

    @classmethod
    def find_labels(cls, train: Rows, task: Task) -> list[Label]:
        if task.data.labels is not None:
            names = [str(label) for label in task.data.labels]
            known = set(schemes.labels_of(schemes.types_of(names)))
            return list(
                names if set(names) <= known and "O" in names else schemes.labels_of(schemes.types_of(names))
            )
        found = sorted(schemes.types_of(pac.unique(tagged.flat(train.table["tags"])[0]).to_pylist()))
        if not found:
            remedy = "is this the column of the tags?"
            raise InputError("no word is part of an entity", where=train.where, remedy=remedy)
        return list(schemes.labels_of(found))

    def check(self, name: str, rows: Rows) -> None:
        values, offsets = tagged.flat(rows.table["tags"])
        strange = pac.is_null(pac.index_in(values, value_set=pa.array(self.names, pa.string())))
        if (k := pac.index(strange, True).as_py()) >= 0:
            row = int(np.searchsorted(offsets, k, "right")) - 1
            source = (
                "data.labels does not name it"
                if self.task.data.labels
                else "the training rows do not have it"
            )
            message = f"tag '{values[k]}': {source}"
            raise InputError(
                message,
                where=rows.place(row, k - int(offsets[row])),
                remedy=did_you_mean(str(values[k]), self.names),
            )
        if self.options.context == "document" and "document" not in rows.table.column_names:
            remedy = 'name their column (data.columns.document), or context = "sentence"'
            message = 'ner.context = "document", but these rows have no documents'
            raise InputError(message, where=rows.where, remedy=remedy)

    def prepare(self, train: Rows) -> None:
        task = self.task
        self.require_metrics(own.METRICS, "none of ner")
        if task.recipe.class_weights is not None:
            raise InputError("ner has no class weights", where="recipe.class_weights")
        if self.options.context == "document":
            held_out = task.data.validation is not None and task.data.group is None
            for key, divides in (("data.limit_train", task.data.limit_train), ("data.validation", held_out)):
                if divides:
                    raise InputError(
                        'this takes sentences out of their documents, which ner.context = "document" needs',
                        where=key,
                        remedy='data.group = "document" holds out whole ones',
                    )

    def blocks(self, rows: Rows, size: int) -> Iterator[Rows]:
        if self.options.context == "sentence" or "document" not in rows.table.column_names:
            yield from super().blocks(rows, size)
            return
        start = 0
        ends = [*(np.flatnonzero(np.diff(rows.table["document"].to_numpy())) + 1).tolist(), len(rows)]
        for end in ends:
            if end - start >= size or end == len(rows):
                yield rows.part(start, end)
                start = end

    def rows(self, inputs: Sequence[Any]) -> Rows:
        """Texts, or lists of words."""
        nothing = pa.nulls(len(inputs), pa.list_(pa.string()))
        if all(isinstance(each, str) for each in inputs):
            found = words.split(inputs)
            offsets = pa.array(found.offsets, pa.int32())
            columns = {
                "tokens": pa.array(found.words, pa.string()),
                "starts": pa.array(found.starts),
                "ends": pa.array(found.ends),
            }
            lists = {name: pa.ListArray.from_arrays(offsets, column) for name, column in columns.items()}
            return Rows(
                pa.table({"text": pa.array(list(inputs), pa.string()), "tags": nothing, **lists}), "inputs"
            )
        if not all(
            isinstance(each, (list, tuple)) and all(isinstance(word, str) for word in each) for each in inputs
        ):
            raise InputError("these inputs can't be read", remedy="give texts, or lists of words")
        lists = pa.array([list(each) for each in inputs], pa.list_(pa.string()))
        return Rows(pa.table({"tokens": lists, "tags": nothing}), "inputs")

    def references(self, rows: Rows) -> np.ndarray:
        """(W,) tag ids of all words, in their order."""
        ids = pac.index_in(tagged.flat(rows.table["tags"])[0], value_set=pa.array(self.names, pa.string()))
        numbers: np.ndarray = pac.fill_null(ids, -1).to_numpy().astype(np.int64)
        return numbers

    # --- the model's side

    def encode(self, rows: Rows, tokenizer: Any, max_length: int) -> Features:
        """One feature a sentence, or several overlapping ones of a sentence that is longer than `max_length`.

        A word's place is its first token in the window where that has most context; only there it is learned
        and predicted. With ner.context = "document" the sentences around fill each window (Devlin et al.
        2019, 5.3).
        """
        texts, offsets = tagged.flat(rows.table["tokens"])
        ids, pieces = tokenization.encode_words(tokenizer, texts)
        frame = fast_tokenizer.frame(tokenizer)
        limits = pieces[offsets]
        low = limits[:-1]
        high = limits[1:]
        if self.options.context == "document" and "document" in rows.table.column_names:
            first = np.flatnonzero(np.diff(rows.table["document"].to_numpy(), prepend=-1))
            sizes = np.diff(np.append(first, len(rows)))
            low = np.repeat(limits[first], sizes)
            high = np.repeat(limits[np.append(first, len(rows))[1:]], sizes)
        begin, end, core = windows(limits, low, high, max_length - frame.size, self.options.stride)

        starts, at = fast_tokenizer.join([frame.parts[0], (frame.size + begin, end - begin), frame.parts[1]])
        columns = {"input_ids": ids, "token_type_ids": np.full_like(ids, frame.kinds[0])}
        tokens = {key: np.concatenate([own, columns[key]])[at] for key, own in frame.columns.items()}

        spoken = np.flatnonzero(np.diff(pieces))
        window = np.searchsorted(core, pieces[spoken], "right") - 1
        # from a piece's number to its place in the window
        shift = starts[window] + frame.parts[0][1] - begin[window]
        place = pieces[spoken] + shift
        word = np.full(len(at), -1, np.int32)
        word[place] = spoken
        labels = np.full(len(at), -100, np.int64)
        weights = np.zeros(len(begin))
        if not rows.table["tags"].null_count:
            gold = self.references(rows)[spoken]
            if self.options.label_all_tokens:  # as transformers' run_ner: I- behind the first
                sizes = np.diff(pieces)[spoken]
                every = ranges(pieces[spoken], sizes)
                last = np.repeat(end[window], sizes)
                seen = every < last
                labels[(every + np.repeat(shift, sizes))[seen]] = np.repeat(self._inner()[gold], sizes)[seen]
            labels[place] = gold
            weights = np.add.reduceat(labels >= 0, starts[:-1]).astype(np.float64)
        counts = {
            "rows": len(rows),
            "tokens": len(at),
            "windows": len(begin),
            "words": len(texts),
            "without_tokens": len(texts) - len(spoken),
            "unknown": coverage.unknown(tokenizer, tokens["input_ids"]),
        }
        counts |= coverage.counts(*coverage.of_texts(tokenizer, texts.to_pylist()))
        return Features(starts, tokens, {}, weights, counts, {"labels": labels}, {"word": word})

    def _iob2(self) -> np.ndarray:
        """(C,) the tag that each is in IOB2, as gold tags are, where the head has one in BIOES or BILOU."""
        names = self.names
        letters = {"S": "B", "U": "B", "E": "I", "L": "I", "M": "I"}
        read = [
            f"{letters.get(name[:1], name[:1])}{name[1:]}" if name[1:2] == "-" else name for name in names
        ]
        return np.array([names.index(name) if name in names else k for k, name in enumerate(read)])

    def _inner(self) -> np.ndarray:
        """(C,) the tag that continues each: I-X of B-X, else itself."""
        names = self.names
        inner = {f"B-{name[2:]}": k for k, name in enumerate(names) if name.startswith("I-")}
        return np.array([inner.get(name, k) for k, name in enumerate(names)])

    def loss(self, logits: torch.Tensor, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        import torch.nn.functional as F

        scores = logits.float().transpose(1, 2)
        smoothing = self.task.recipe.label_smoothing
        return F.cross_entropy(scores, batch["labels"], label_smoothing=smoothing, reduction="none").sum(1)

    def decode(self, logits: np.ndarray, features: Features, rows: Rows) -> dict[str, np.ndarray]:
        """`prediction` (W,) tag ids and `score` (W,) their probabilities, of all words in their order.

        A word without tokens goes on with the entity that its neighbours are both in, and is O otherwise; its
        score is nan.
        """
        offsets = tagged.flat(rows.table["tokens"])[1]
        places = np.flatnonzero(features.places["word"] >= 0)
        spoken = features.places["word"][places]
        scores = logits[places].astype(np.float64)
        scores -= scores.max(axis=1, keepdims=True)
        scores -= np.log(np.exp(scores).sum(axis=1, keepdims=True))
        if self.options.decoding == "viterbi":
            chosen = schemes.viterbi(scores, np.searchsorted(spoken, offsets), self.names)
        else:
            chosen = scores.argmax(axis=1)
        prediction = np.full(offsets[-1], -1)
        score = np.full(offsets[-1], np.nan)
        prediction[spoken] = chosen
        score[spoken] = np.exp(scores[np.arange(len(chosen)), chosen])
        if len(silent := np.flatnonzero(prediction < 0)):
            prediction[silent] = self._between(prediction, spoken, silent, offsets)
        return {"prediction": prediction, "score": score}

    def _between(
        self, prediction: np.ndarray, spoken: np.ndarray, silent: np.ndarray, offsets: np.ndarray
    ) -> np.ndarray:
        """The tags of words without tokens."""
        outside = self.names.index("O") if "O" in self.names else 0
        if not len(spoken):
            return np.full(len(silent), outside)
        prefix, kind, _ = entities.parse(self.names, entities.ALIASES)
        after = np.searchsorted(spoken, silent)
        left = spoken[np.maximum(after - 1, 0)]
        right = spoken[np.minimum(after, len(spoken) - 1)]
        a = prediction[left]
        b = prediction[right]
        row = np.searchsorted(offsets, [left, silent, right], "right")
        inside = (
            (left < silent)
            & (silent < right)
            & (row[0] == row[1])
            & (row[1] == row[2])
            & (kind[a] == kind[b])
        )
        inside &= np.isin(prefix[a], [entities.B, entities.I]) & np.isin(prefix[b], [entities.I, entities.E])
        return np.where(inside, self._inner()[a], outside)

    # --- predictions

    @classmethod
    def report(cls, task: Task) -> type[Scored]:
        from bert_ft.families.ner.report import Entities

        return Entities

    def score(self, predictions: Mapping[str, np.ndarray], rows: Rows) -> dict[str, float]:
        """The task's metrics, and the F1 of each type: `f1_PER`."""
        if rows.table["tags"].null_count:
            return {}
        gold = self.references(rows)
        found = predictions["prediction"]
        offsets = tagged.flat(rows.table["tags"])[1]
        result = entities.score(gold, found, offsets, self.names, self.task.metric.mode)
        overall = result.pop("") | {
            "accuracy": float((self._iob2()[found] == gold).mean()) if len(gold) else 0.0
        }
        types = {f"f1_{kind}": scores["f1"] for kind, scores in result.items()}
        return {name: overall[name] for name in self.task.metric.compute} | types

    def warnings(self, predictions: Mapping[str, np.ndarray], rows: Rows) -> list[str]:
        found = np.unique(predictions["prediction"])
        if len(found) != 1 or len(predictions["prediction"]) < 2:
            return []
        return [
            f"every word is tagged {self.names[int(found[0])]}: the training has collapsed, or hardly begun"
        ]

    def lines(self, predictions: Mapping[str, np.ndarray], rows: Rows) -> Iterable[dict[str, Any]]:
        offsets = tagged.flat(rows.table["tokens"])[1].tolist()
        named = np.array(self.names, object)[predictions["prediction"]].tolist()
        columns = rows.table["tokens"].to_pylist(), rows.table["tags"].to_pylist()
        for row, (texts, gold) in enumerate(zip(*columns, strict=True)):
            yield {
                "row": row,
                "tokens": texts,
                "prediction": named[offsets[row] : offsets[row + 1]],
                "label": gold,
            }

    def decode_raw(self, predictions: Mapping[str, np.ndarray], rows: Rows) -> Iterable[dict[str, Any]]:
        """Of a text, its entities (start and end in characters, label, score: the mean of its words', as in
        `transformers`' pipeline); of a list of words, their tags."""
        if "text" not in rows.table.column_names:
            yield from super().decode_raw(predictions, rows)
            return
        starts, offsets = tagged.flat(rows.table["starts"])
        ends = tagged.flat(rows.table["ends"])[0].to_pylist()
        prefix, kind, kinds = entities.parse(self.names, entities.ALIASES)
        codes = (entities.apart(table[predictions["prediction"]], offsets) for table in (prefix, kind))
        first, last, found = entities.chunks(*codes)
        row = np.searchsorted(offsets[1:] + np.arange(len(rows)), first)
        answers: list[list[dict[str, Any]]] = [[] for _ in range(len(rows))]
        for r, a, b, k in zip(
            row.tolist(), (first - row).tolist(), (last - row).tolist(), found.tolist(), strict=True
        ):
            score = float(np.nanmean(predictions["score"][a : b + 1]))
            answers[r].append({"start": starts[a].as_py(), "end": ends[b], "label": kinds[k], "score": score})
        for text, answer in zip(rows.table["text"].to_pylist(), answers, strict=True):
            yield {"text": text, "entities": answer}
