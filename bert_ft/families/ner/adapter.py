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
from bert_ft.data.finding import Finding
from bert_ft.data.rows import PLACES, Canonical, Rows
from bert_ft.data.sources import Raw, Reader
from bert_ft.errors import InputError, did_you_mean
from bert_ft.families import coverage, fast_tokenizer, tokenization, words
from bert_ft.families.base import Adapter, Baseline
from bert_ft.families.features import Features, ranges
from bert_ft.families.ner import decoding, frequent, schemes, spelling, tagged
from bert_ft.families.ner import options as own
from bert_ft.families.ner.encoding import windows
from bert_ft.families.ner.formats.readers import READERS
from bert_ft.metrics import choice, entities, scoring

if TYPE_CHECKING:
    import torch

    from bert_ft.report.scored_set import Scored


WORDS = "unspaced"
"""What a model says of the words it was trained with: those of `words.split`, `unspaced` ones too."""


class Ner(Adapter):
    """A tag a word.

    Canonical rows: tokens (list of strings), tags (list of strings, IOB2; null where a row has none),
    document (int32, where the source has documents). Where raw text has spans that no words express: learned
    (as tags, with the words that such spans lie in) and missed (list of strings, the types of these spans).
    Of raw inputs also text, starts and ends (lists of int64, characters of each word).

    Attributes:
        unspaced: how raw text is cut into words, as `words.split` takes it.
    """

    family: ClassVar[str] = "ner"
    Options: ClassVar[type[schema.Options]] = own.Options
    head: ClassVar[str] = "AutoModelForTokenClassification"
    roles: ClassVar[Mapping[str, bool]] = {"tokens": True, "tags": True, "document": False, "sentence": False}
    target: ClassVar[str] = "tags"
    texts: ClassVar[tuple[str, ...]] = ("tokens",)
    readers: ClassVar[Mapping[str, Reader]] = READERS
    scores_answers: ClassVar[bool] = True
    baselines: ClassVar[Mapping[str, Baseline]] = {"most frequent tag": frequent.tags}
    pipeline_tag: ClassVar[str | None] = "token-classification"
    unspaced: bool = True

    def __init__(
        self, task: Task, labels: Sequence[Label] = (), tuned: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(task, labels, {"words": WORDS} if tuned is None else tuned)
        # a model that says nothing of it goes on with the words that it was trained with
        self.unspaced = self.tuned.get("words") == WORDS

    @property
    def reading(self) -> type[Adapter]:
        return type(self) if self.unspaced else type("AsTrained", (type(self),), {"unspaced": False})

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
        out, notes, findings = tagged.canonical(raw, task, columns, labelled, cls.unspaced)
        document = columns.get("document", "document")
        if document in raw.table.column_names:
            changes = np.zeros(len(raw.table), bool)
            for name in {document, "file"} & set(raw.table.column_names):
                changes[1:] |= np.diff(cells.codes(raw.table[name])) != 0
            out["document"] = pa.array(np.cumsum(changes), pa.int32())
        out |= {name: raw.table[name] for name in PLACES if name in raw.table.column_names}
        return Canonical(pa.table(out), notes, findings=findings)

    @classmethod
    def find_labels(cls, train: Rows, task: Task) -> list[Label]:
        if task.data.labels is not None:
            names = [str(label) for label in task.data.labels]
            known = set(schemes.labels_of(schemes.types_of(names)))
            return list(
                names if set(names) <= known and "O" in names else schemes.labels_of(schemes.types_of(names))
            )
        tags = pac.unique(tagged.flat(train.table["tags"])[0]).to_pylist()
        found = sorted({*schemes.types_of(tags), *tagged.missed(train.table)})
        if not found:
            remedy = "is this the column of the tags?"
            raise InputError("no word is part of an entity", where=train.where, remedy=remedy)
        return list(schemes.labels_of(found))

    def check(self, name: str, rows: Rows) -> None:
        self._respell(rows)
        values, offsets = tagged.flat(rows.table["tags"])
        self._refuse_unknown(rows, values, offsets, words=True)
        if "missed" in rows.table.column_names:
            kinds, offsets = tagged.flat(rows.table["missed"])
            self._refuse_unknown(rows, pac.binary_join_element_wise("B", kinds, "-"), offsets, words=False)
        if self.options.context == "document" and "document" not in rows.table.column_names:
            remedy = 'name their column (data.columns.document), or context = "sentence"'
            message = 'ner.context = "document", but these rows have no documents'
            raise InputError(message, where=rows.where, remedy=remedy)

    def checks(self, sets: Mapping[str, Rows]) -> Iterable[Finding]:
        if self.options.spelling is not None:
            return
        for name, rows in sets.items():
            self._respell(rows)
            tags = pac.unique(tagged.flat(rows.table["tags"])[0]).to_pylist()
            known = set(schemes.types_of(self.names)) if name != "train" else set()
            types = [kind for kind in schemes.types_of(tags) if kind not in known]
            yield from spelling.doubts(name, types)
            yield from spelling.written_out(name, types)

    def _respell(self, rows: Rows) -> None:
        """Reads tags that are too few to tell their spelling in the one that makes them the model's: those of
        a validation set with B_PER alone, where training has I_PER too."""
        given = rows.table["tags"]
        if self.options.spelling is not None or given.null_count or "missed" in rows.table.column_names:
            return
        values, offsets = tagged.flat(given)
        tags = pac.unique(values).to_pylist()
        known = set(schemes.types_of(self.names))
        new = spelling.by_types([kind for kind in schemes.types_of(tags) if kind not in known], known)
        if new:
            names = [new.get(tag[2:], tag) for tag in tags]
            respelled = pa.array(names, pa.string()).take(pac.index_in(values, value_set=pa.array(tags)))
            lists = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), respelled)
            read = schemes.to_iob2(lists, "auto", str)[0]
            rows.table = rows.table.set_column(rows.table.column_names.index("tags"), "tags", read)

    def _refuse_unknown(self, rows: Rows, tags: pa.Array, offsets: np.ndarray, words: bool) -> None:
        """Refuses tags that are none of the labels; `words`: each is a word's."""
        strange = pac.is_null(pac.index_in(tags, value_set=pa.array(self.names, pa.string())))
        if (k := pac.index(strange, True).as_py()) >= 0:
            row = int(np.searchsorted(offsets, k, "right")) - 1
            source = (
                "data.labels does not name it"
                if self.task.data.labels
                else "the training rows do not have it"
            )
            raise InputError(
                f"tag '{tags[k]}': {source}",
                where=rows.place(row, k - int(offsets[row]) if words else None),
                remedy=did_you_mean(str(tags[k]), self.names),
            )

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
            found = words.split(inputs, self.unspaced)
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
        return self._ids(rows.table["tags"])

    def _learned(self, rows: Rows) -> np.ndarray:
        """(W,) tag ids of all words as a training learns them."""
        return self._ids(rows.table["learned" if "learned" in rows.table.column_names else "tags"])

    def _ids(self, tags: pa.ChunkedArray) -> np.ndarray:
        ids = pac.index_in(tagged.flat(tags)[0], value_set=pa.array(self.names, pa.string()))
        return np.asarray(pac.fill_null(ids, -1).to_numpy().astype(np.int64))

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
            gold = self._learned(rows)[spoken]
            if self.options.label_all_tokens:  # as transformers' run_ner: I- behind the first
                sizes = np.diff(pieces)[spoken]
                every = ranges(pieces[spoken], sizes)
                last = np.repeat(end[window], sizes)
                seen = every < last
                labels[(every + np.repeat(shift, sizes))[seen]] = np.repeat(
                    decoding.inner(self.names)[gold], sizes
                )[seen]
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

    def loss(self, logits: torch.Tensor, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        import torch.nn.functional as F

        scores = logits.float().transpose(1, 2)
        smoothing = self.task.recipe.label_smoothing
        return F.cross_entropy(scores, batch["labels"], label_smoothing=smoothing, reduction="none").sum(1)

    def decode(self, logits: np.ndarray, features: Features, rows: Rows) -> dict[str, np.ndarray]:
        """`prediction` (W,) tag ids and `score` (W,) their probabilities, of all words in their order.

        A word without tokens goes on with the entity that its neighbours are both in, and is O otherwise; its
        score is nan. Of a fold also `probabilities` (W, C), float32.
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
            prediction[silent] = decoding.between(prediction, spoken, silent, offsets, self.names)
        columns = {"prediction": prediction, "score": score}
        if "/" in str(self.task.data.validation):  # a fold, whose probabilities find wrong labels
            columns["probabilities"] = np.full((len(prediction), scores.shape[1]), np.nan, np.float32)
            columns["probabilities"][spoken] = np.exp(scores)
        return columns

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
        result = entities.score(
            gold, found, offsets, self.names, self.task.metric.mode, missed=tagged.missed(rows.table)
        )
        overall = result.pop("") | {
            "accuracy": float((decoding.iob2(self.names)[found] == gold).mean()) if len(gold) else 0.0
        }
        types = {f"f1_{kind}": scores["f1"] for kind, scores in result.items()}
        return {name: overall[name] for name in self.task.metric.compute} | types

    def candidate(self, predictions: Mapping[str, np.ndarray], rows: Rows) -> choice.Candidate | None:
        offsets = tagged.flat(rows.table["tags"])[1]
        gold, found = self.references(rows), predictions["prediction"]
        keys = entities.by_sentence(
            gold, found, offsets, self.names, self.task.metric.mode, decoding.iob2(self.names)[found] == gold
        )
        if "missed" in rows.table.column_names:
            keys[:, 2] += pac.fill_null(pac.list_value_length(rows.table["missed"]), 0).to_numpy()
        return choice.answers(keys, scoring.Entities())

    def rated(self, predictions: Mapping[str, np.ndarray], rows: Rows) -> tuple[np.ndarray, np.ndarray]:
        """Of the entities; right is one with the limits and the type of a gold one."""
        gold, offsets = self.references(rows), tagged.flat(rows.table["tags"])[1]
        return decoding.rated(predictions, gold, offsets, self.names)

    def collapse(self, predictions: Mapping[str, np.ndarray]) -> str | None:
        found = np.unique(predictions["prediction"])
        if len(found) != 1 or len(predictions["prediction"]) < 2:
            return None
        return f"every word is tagged {self.names[int(found[0])]}"

    def lines(self, predictions: Mapping[str, np.ndarray], rows: Rows) -> Iterable[dict[str, Any]]:
        offsets = tagged.flat(rows.table["tokens"])[1].tolist()
        named = np.array(self.names, object)[predictions["prediction"]].tolist()
        columns = rows.table["tokens"].to_pylist(), rows.table["tags"].to_pylist()
        beside = {"missed": rows.table["missed"].to_pylist()} if "missed" in rows.table.column_names else {}
        if "probabilities" in predictions:
            beside["probabilities"] = decoding.by_tag(predictions["probabilities"], offsets, self.names)
        for row, (texts, gold) in enumerate(zip(*columns, strict=True)):
            said = named[offsets[row] : offsets[row + 1]]
            line = {"row": row, "tokens": texts, "prediction": said, "label": gold}
            yield line | {key: column[row] for key, column in beside.items()}

    def decode_raw(self, predictions: Mapping[str, np.ndarray], rows: Rows) -> Iterable[dict[str, Any]]:
        """Of a text, its entities (start and end in characters, label, score: the mean of its words', as in
        `transformers`' pipeline, calibrated); of a list of words, their tags."""
        if "text" not in rows.table.column_names:
            yield from super().decode_raw(predictions, rows)
            return
        starts, offsets = tagged.flat(rows.table["starts"])
        limits = starts.to_pylist(), tagged.flat(rows.table["ends"])[0].to_pylist()
        answers = decoding.in_characters(predictions, offsets, limits, self.names, self.calibrated)
        for text, answer in zip(rows.table["text"].to_pylist(), answers, strict=True):
            yield {"text": text, "entities": answer}
