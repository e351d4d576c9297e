"""`bert-ft reproduce` of a frozen encoder: texts become vectors, which are measured and judged."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bert_ft import display, families, files, prepared, reading
from bert_ft.config import frozen
from bert_ft.config.catalog import FROZEN
from bert_ft.config.frozen import DECLARED, FrozenReference, FrozenTask, Vectors
from bert_ft.data.rows import Rows
from bert_ft.errors import InputError
from bert_ft.modeling import remote_code
from bert_ft.modeling.vectors import embedder as vectors_of
from bert_ft.modeling.vectors.embedder import Embedder
from bert_ft.rundir import environment
from bert_ft.rundir.naming import clean, short_name
from bert_ft.tools.reproduce import place
from bert_ft.tools.reproduce.conditions import origin, points
from bert_ft.tools.reproduce.frozen import measures, verdict
from bert_ft.tools.reproduce.frozen.outcome import FrozenOutcome, Measured
from bert_ft.tools.reproduce.verdict import Verdict

Scores = dict[str, dict[str, list[float]]]
"""Set -> metric -> values in points: one, or one a draw."""


@dataclass
class Plan:
    """What is to be measured.

    Attributes:
        base: as its file has it. measured: as it is measured.
        vectors: how texts become vectors; None: as the checkpoint's folder declares it.
        references: the published numbers it is held against.
    """

    base: FrozenTask
    measured: FrozenTask
    vectors: Vectors | None
    references: list[FrozenReference]


def reproduce(
    name: str | Path,
    checkpoint: str,
    *,
    data_dir: str | Path | None = None,
    output: str | Path | None = None,
    reference: str | None = None,
    margin: float | None = None,
    quiet: bool = False,
    trust_remote_code: remote_code.Names = None,
    **settings: Any,
) -> FrozenOutcome:
    """Measures a frozen encoder as a benchmark does, and says whether its published numbers were reached.

    Args:
        name: a built-in measurement ("stsbenchmark"), or a TOML file with the table `[frozen]`.
        output: where `results.json`, `table.md` and `page.html` are written;
            `runs/reproduce-<name>-<checkpoint>` by default.
        reference: words of a source, to choose among published numbers; by default those of this checkpoint.
            Texts become vectors as the first of them says.
        margin: points that a reproduced number may differ by; 0.0001 by default.
        settings: keys of `[frozen]`, or of the reference's `vectors`: the published conditions are left then,
            and the verdict says so.
    Raises:
        InputError: no such measurement; rows, a checkpoint or a setting that is at fault; or files of
            something else lie where the results would be written.
    """
    began = time.perf_counter()
    checkpoint = str(checkpoint)
    words = map(clean, ("reproduce", Path(name).stem, short_name(checkpoint)))
    folder = reading.path(output) if output is not None else Path("runs") / "-".join(words)
    place.refuse_others(folder)
    made = plan(name, checkpoint, reference, settings)
    rows = read(made.measured, data_dir)  # first, since faults of files show at once
    embedder = _embedder(checkpoint, made.vectors, trust_remote_code)
    show = display.Display(quiet)
    for note in embedder.notes:
        show.say(note)
    scores, notes = measure(made.measured, rows, embedder, show)
    margin = verdict.MARGIN if margin is None else margin
    judged = [
        (published, _judged(published, made, checkpoint, scores, margin)) for published in made.references
    ]
    outcome = FrozenOutcome(
        Measured(
            name=str(name),
            title=made.base.task.title or made.base.name,
            checkpoint=checkpoint,
            measure=made.measured.conditions()[FROZEN],
            vectors=_stated(made.vectors, embedder),
            scores=scores,
            judged=judged,
            notes=notes,
            margin=margin,
            seconds=time.perf_counter() - began,
            device=environment.device_name(embedder.encoder.accelerator),
        ),
        folder,
    )
    outcome.write()
    return outcome


def plan(
    name: str | Path, checkpoint: str, requested: str | None = None, settings: Mapping[str, Any] | None = None
) -> Plan:
    """What is measured, and against which numbers; arguments and errors as of `reproduce`."""
    base = frozen.load(name)
    own, others = dict[str, Any](), dict[str, Any]()
    for key, value in (settings or {}).items():
        table, _, leaf = key.rpartition(".")
        # --max-length, of a trained task, is a key of its recipe
        (own if leaf in Vectors.model_fields and table in ("", "vectors", "recipe") else others)[
            leaf if leaf in Vectors.model_fields else key
        ] = value
    published = [
        number
        for number in base.references
        if requested is None or requested.casefold() in number.source.casefold()
    ]
    if requested is not None and not published:
        raise InputError(
            f"no published number whose source holds '{requested}'",
            where="--reference",
            remedy="known: " + "; ".join(sorted({number.source for number in base.references})),
        )
    encoder = origin(checkpoint)[0]
    same = [number for number in published if short_name(number.checkpoint) == encoder]
    references = same if same or requested is None else published
    vectors = references[0].vectors if references else None
    if own:
        stated = vectors.model_dump() if vectors else {"pooling": DECLARED}
        vectors = frozen.table_of(Vectors, stated | own, "the vectors' settings")
    return Plan(base, base.override(others) if others else base, vectors, references)


def _embedder(checkpoint: str, vectors: Vectors | None, trusted: remote_code.Names) -> Embedder:
    """The checkpoint's encoder in fp32, which published numbers are of."""
    if vectors is None:
        return Embedder.load(checkpoint, precision="fp32", trust_remote_code=trusted)
    return Embedder.load(
        checkpoint,
        pooling=None if vectors.pooling == DECLARED else vectors.pooling,
        normalize=vectors.normalize,
        max_length=vectors.max_length,
        prompt=vectors.prompt,
        precision="fp32",
        trust_remote_code=trusted,
    )


def _stated(vectors: Vectors | None, embedder: Embedder) -> dict[str, Any]:
    """How texts became vectors."""
    if vectors is not None:
        return vectors.model_dump()
    return {"pooling": DECLARED, "max_length": embedder.encoder.max_length, "prompt": embedder.prompt}


def read(measured: FrozenTask, data_dir: str | Path | None) -> prepared.Prepared:
    """The rows of every set. Raises InputError: some that can't be read or scored."""
    task = measured.task
    if data_dir is not None:
        task = task.override({"run.data_dir": data_dir}, f"measurement {measured.name}")
    is_probe = measured.measure.measure == "probe"
    rows = prepared.read(task, families.find(task.family), training=is_probe)
    for name, part in rows.scored.items():
        if not is_probe and "text_pair" not in part.table.column_names:
            raise InputError(
                "these rows are no pairs of texts",
                where=part.where,
                remedy="columns for text, text_pair and label, in [data] and in [data.original]",
            )
        if part.table["label"].null_count:
            raise InputError(f"the set '{name}' has no labels to be scored by", where=part.where)
    for name, part in rows.splits.all().items():
        rows.adapter.check(name, part)
    return rows


def measure(
    measured: FrozenTask, rows: prepared.Prepared, embedder: Embedder, show: display.Display
) -> tuple[Scores, list[str]]:
    """The scores of every set, in points, and what a person should know of them. Raises InputError: training
    rows of one label alone."""
    texts = _Texts(embedder, show)
    if measured.measure.measure == "similarity":
        scores = _similarities(rows.scored, texts)
        return scores, [*rows.notes, *texts.notes]
    run = _Probe(measured, rows)
    scores = run.scores(texts)
    return scores, [*rows.notes, *run.notes, *texts.notes]


def _similarities(sets: Mapping[str, Rows], texts: _Texts) -> Scores:
    columns = [part.table[role].to_pylist() for part in sets.values() for role in ("text", "text_pair")]
    found = texts.vectors(columns)
    scores: Scores = {}
    for k, (name, part) in enumerate(sets.items()):
        values = measures.similarity(found[2 * k], found[2 * k + 1], part.table["label"].to_numpy())
        scores[name] = {metric: [100 * value] for metric, value in values.items()}
    return scores


class _Probe:
    """Draws rows and fits a classifier to each draw; `notes` says what a person should know of it."""

    def __init__(self, measured: FrozenTask, rows: prepared.Prepared) -> None:
        self.measure, self.rows, self.notes = measured.measure, rows, list[str]()
        adapter, train = rows.adapter, rows.splits.train
        self.labels = adapter.references(train)
        counts = np.bincount(self.labels, minlength=len(adapter.names))
        if (counts > 0).sum() < 2:
            raise InputError(
                "the training rows have one label alone, so that there is nothing to tell apart",
                where=train.where,
            )
        wanted = self.measure.rows_per_label
        if few := [f"'{adapter.names[k]}' {counts[k]:,}" for k in np.flatnonzero(counts < wanted)]:
            listed = ", ".join(few[:5]) + (", ..." if len(few) > 5 else "")
            self.notes.append(
                f"labels with fewer than {wanted} training rows, all of which are in every draw: {listed}"
            )

    def scores(self, texts: _Texts) -> Scores:
        """The scores of every set, one a draw."""
        adapter, sets = self.rows.adapter, self.rows.scored
        drawn = measures.draws(self.labels, self.measure)
        used = np.unique(np.concatenate(drawn))  # of the training rows, those of any draw
        columns = [self.rows.splits.train.take(used).table["text"], *(p.table["text"] for p in sets.values())]
        train, *others = texts.vectors([column.to_pylist() for column in columns])
        tests = dict(zip(sets, others, strict=True))
        out: Scores = {name: {} for name in sets}
        unfinished = 0
        for rows in drawn:
            vectors = train[np.searchsorted(used, rows)]
            fitted = measures.probe(vectors, self.labels[rows], tests, self.measure)
            unfinished += not fitted.converged
            for name, predictions in fitted.predictions.items():
                for metric, value in adapter.score({"prediction": predictions}, sets[name]).items():
                    out[name].setdefault(metric, []).append(points(value, adapter.family, metric))
        if unfinished:
            self.notes.append(
                f"{unfinished} of {len(drawn)} classifiers ended at {self.measure.max_iter} iterations, "
                "before they had converged"
            )
        return out


@dataclass
class _Texts:
    """Texts of several columns as vectors, computed together and equal ones once."""

    embedder: Embedder
    show: display.Display
    notes: list[str] = field(default_factory=list)

    def vectors(self, columns: Sequence[Sequence[str]]) -> list[np.ndarray]:
        """The (N, D) vectors of each column."""
        texts = [text for column in columns for text in column]
        self.show.say(f"{len(set(texts)):,} texts become vectors")
        found = self.embedder.vectors(texts)
        counts = len(texts), int(found.empty.sum()), int(found.truncated.sum())
        self.notes += vectors_of.told(*counts, self.embedder.encoder.max_length)
        return np.split(found.vectors, np.cumsum([len(column) for column in columns])[:-1])


def _judged(
    reference: FrozenReference, made: Plan, checkpoint: str, scores: Scores, margin: float
) -> Verdict:
    """The verdict on one published number: the conditions first, then the values."""
    unmet = conditions(reference, made, checkpoint)
    if reference.split not in scores:
        unmet.append(f"split: {reference.split} published, scored here: {', '.join(scores)}")
    elif reference.metric not in scores[reference.split]:
        unmet.append(f"metric: {reference.metric} is not computed here")
    if unmet:
        return Verdict("not comparable", unmet)
    return verdict.judge(reference, scores[reference.split][reference.metric], margin)


def conditions(reference: FrozenReference, made: Plan, checkpoint: str) -> list[str]:
    """The conditions of a published number that a measurement does not meet, in words."""
    out = []
    name, trained = origin(checkpoint)
    if short_name(reference.checkpoint) != name:
        out.append(f"checkpoint: {short_name(reference.checkpoint)} published, {name} here")
    if trained != "none":
        out.append(f"training: none published, on {trained} here")
    measured = made.measured.measure
    statistic = "mean" if measured.measure == "probe" and measured.draws > 1 else "single run"
    if reference.statistic != statistic:
        out.append(f"statistic: {reference.statistic} published, {statistic} here")
    published = made.base.conditions() | {"vectors": reference.vectors.model_dump()}
    here = made.measured.conditions() | {"vectors": made.vectors.model_dump() if made.vectors else {}}
    for line in files.difference(published, here):
        out.append(f"{line.replace(' -> ', ' published, ')} here")
    return out + reference.unmet
