"""`bert-ft check`: what a person should know about a task's data before a training is spent on it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from bert_ft import families, progress
from bert_ft.config.catalog import load_task
from bert_ft.config.task import Task
from bert_ft.data import loading, overrides, splitting
from bert_ft.data.checks import labels, texts
from bert_ft.data.checks.columns import encode, has_target, plain
from bert_ft.data.checks.findings import at, excerpt, listed
from bert_ft.data.finding import KEPT, Finding, Severity
from bert_ft.data.rows import Rows
from bert_ft.errors import InputError, shown
from bert_ft.families import coverage, soft_labels, tokenization
from bert_ft.families.base import Adapter
from bert_ft.modeling import remote_code, vocabulary
from bert_ft.modeling.model import BLOCK
from bert_ft.prepared import read
from bert_ft.tools import wrong_labels

TOGETHER = 10_000  # texts whose tokens are counted together
UNTRUNCATED = 2**20  # tokens: more than any text has
LONG = 0.05  # share of the rows from which truncation is a warning
# share of the tokens, or characters, from which unknown ones are a warning; below a twentieth not even a note
UNKNOWN = 0.02
STYLES = {"fault": "bold red", "warning": "yellow", "note": "cyan"}


@dataclass
class Report:
    """What `check` found.

    Attributes:
        sets: name -> rows, where (the source), labels (label -> rows), tokens (median, 95 %, longest; of a
            row).
        findings: the gravest first.
        notes: what was done to the rows while they were read.
        skipped: what was not checked, and why.
        suspects: with a run, the training rows whose labels are likely wrong, as `wrong_labels.find` has
            them.
    """

    task: str
    sets: dict[str, dict[str, Any]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    suspects: list[dict[str, Any]] | None = None

    @property
    def readable(self) -> bool:
        """Whether every row could be read, so that a training can begin."""
        return _readable(self.findings)

    @property
    def clean(self) -> bool:
        """Whether there is neither a fault nor a warning."""
        return all(finding.severity == "note" for finding in self.findings)

    def dump(self, limit: int) -> dict[str, Any]:
        """The report as JSON values, with at most `limit` examples a finding."""
        tree = asdict(self)
        for finding in tree["findings"]:
            finding |= {key: finding[key][:limit] for key in ("examples", "places")}
        suspects = tree.pop("suspects")
        return tree if suspects is None else tree | {"suspects": suspects[:limit]}


def check(
    task: str | Path | Task,
    checkpoint: str | None = None,
    *,
    data_dir: str | Path | None = None,
    train: Any = None,
    validation: Any = None,
    test: Any = None,
    run: str | Path | None = None,
    trust_remote_code: remote_code.Names = None,
    **settings: Any,
) -> Report:
    """Checks a task's rows. The arguments are those of `finetune`; without a checkpoint nothing is tokenized.

    Args:
        run: a run of folds of these rows, by which labels that are likely wrong are found.
    Raises:
        InputError: data that can't be read at all, or a run that says nothing of it.
    """
    sets_ = overrides.sets(train, validation, test)
    bound = overrides.bound(load_task(task), sets_, settings, checkpoint=checkpoint, data_dir=data_dir)
    family = families.find(bound.family)
    bound = loading.with_group(bound, family)
    training = bool(loading.local_layout(bound).train)
    prepared = read(bound, family, overrides.objects(sets_), training=training, others=True, lenient=True)
    adapter = prepared.adapter
    splits = prepared.splits
    sets = splits.all() if training else prepared.scored
    report = Report(bound.name, notes=[*prepared.notes, *remote_code.notes(bound.run)])
    for name, rows in sets.items():
        has_labels = adapter.labels and has_target(rows, family.target)
        counts = soft_labels.counts(rows, family.target) if has_labels else {}
        report.sets[name] = {"rows": len(rows), "where": rows.where, "labels": counts}
    findings = [*splits.findings, *texts.of_rows(adapter, sets)]
    findings += _refused(adapter, sets, splits.train if training else None, findings)
    if training and splits.train.others is not None:
        findings += _of_columns(splits.train, splits.train.others, family.target)
    if run is not None and _readable(findings):
        report.suspects = wrong_labels.find(run, bound, family, overrides.objects(sets_))
        findings += wrong_labels.finding(report.suspects, family.texts)
    if bound.run.checkpoint is None:
        report.skipped.append(
            "lengths and unknown tokens, which need a tokenizer: name one with --checkpoint"
        )
    else:
        first = [text for rows in sets.values() for text in texts.first_texts(rows, adapter.texts)]
        tokenizer, notes = vocabulary.load(
            bound.run, bound.run.checkpoint, first, remote_code.names(trust_remote_code)
        )
        report.notes = [*report.notes, *notes]
        for name, rows in sets.items():
            report.sets[name]["tokens"], more = _of_tokens(
                name, rows, adapter, tokenizer, bound.recipe.max_length
            )
            findings += more
            blocks = adapter.blocks(rows, BLOCK)
            encoded = (adapter.encode(part, tokenizer, bound.recipe.max_length) for part in blocks)
            findings += adapter.encoded(name, rows, encoded)
    report.findings = sorted(findings, key=lambda f: list(STYLES).index(f.severity))
    return report


def _readable(findings: Sequence[Finding]) -> bool:
    return all(finding.check != "unreadable" for finding in findings)


def _refused(
    adapter: Adapter, sets: Mapping[str, Rows], train: Rows | None, others: Sequence[Finding]
) -> list[Finding]:
    """What a training would refuse at once, where no other finding says it.

    Args:
        train: the rows that are trained on; None where there are none.
    """
    result: list[Finding] = []
    for name, rows in sets.items():
        try:
            adapter.check(name, rows)
        except InputError as error:
            if not any(
                f.message == error.message or (f.set == name and f.check == "labels")
                for f in [*others, *result]
            ):
                result.append(
                    Finding("refused", "fault", name, 1, error.message, [error.remedy], [error.where])
                )
    if train is None or result:
        return result
    task = adapter.task.override({"data.labels": adapter.labels or None})
    try:  # on a copy, as it leaves its mark on the adapter
        adapter.rebound(task).prepare(splitting.limit(train, task.data.limit_train, task.run.seed))
    except InputError as error:
        where = error.where or "task"
        result.append(Finding("refused", "fault", "train", 1, error.message, [error.remedy], [where]))
    return result


def _of_columns(train: Rows, others: pa.Table, target: str) -> Iterator[Finding]:
    """Columns nobody asked for that give the label away: no model reads them, but they must not get into the
    texts.

    A column does so where its values, or 50 bins of its numbers, stand for one label each; for numbers to
    predict, where it correlates with them by more than 0.99.
    """
    if not has_target(train, target):
        return
    column = train.table[target]
    examples = []
    codes = encode([plain(column)])[0]
    for name in others.column_names:
        other = _comparable(others[name].combine_chunks())
        if other is None or other.null_count == len(other):
            continue
        numeric = pa.types.is_floating(other.type)
        if pa.types.is_floating(column.type):
            both = np.stack([column.to_numpy(), other.to_numpy(False)]) if numeric else np.zeros((2, 1))
            both = both[:, ~np.isnan(both).any(axis=0)]
            if (
                both.shape[1] > labels.FEW
                and (np.ptp(both, axis=1) > 0).all()
                and abs(np.corrcoef(both)[0, 1]) > 0.99
            ):
                examples.append(f"{name}: correlates by {np.corrcoef(both)[0, 1]:.3f}")
            continue
        values = encode([plain(other)])[0]
        binned = numeric and len(np.unique(values)) > 50
        if binned:
            values = other.to_numpy(False).argsort(kind="stable").argsort(kind="stable") * 50 // len(values)
        if (rows := np.flatnonzero(labels.gives_away(values, codes))).size:
            _, first = np.unique(codes[rows], return_index=True)
            values_of = f"{name}: in ranges" if binned else name
            cells = (f"{labels.cell(other, i)} is {labels.cell(column, i)}" for i in rows[first][:3].tolist())
            examples.append(f"{values_of}: {', '.join(cells)}")
    yield from listed(
        "note", "train", "columns giving the label away: keep them out of the text", examples, "leak"
    )


def _comparable(column: pa.Array) -> pa.Array | None:
    """float64 where every cell is a number, also one written as text; else strings; None for lists and the
    like."""
    for kind in (pa.float64(), pa.large_string()):
        with suppress(pa.ArrowInvalid, pa.ArrowNotImplementedError):
            return column.cast(kind)
    return None


def _of_tokens(
    name: str, rows: Rows, adapter: Adapter, tokenizer: Any, max_length: int
) -> tuple[dict[str, int], list[Finding]]:
    """Median, 95 % quantile and maximum of the tokens in a row, before truncation and with special tokens;
    and findings on long rows, unknown tokens and characters in no token."""
    roles = adapter.texts
    columns = [plain(rows.table[role]) for role in roles if role in rows.table.column_names]
    lengths = np.full(len(rows), tokenizer.num_special_tokens_to_add(pair=len(columns) > 1))
    unknown, uncovered, characters = (np.zeros(len(rows), np.int64) for _ in range(3))
    for column in columns:
        coded = column.dictionary_encode()
        counted = zip(*_counted(tokenizer, coded.dictionary), strict=True)
        sums = lengths, unknown, uncovered, characters
        for total, parts in zip(sums, counted, strict=True):
            total += np.concatenate(parts)[coded.indices]
    long = lengths > max_length
    lost = np.maximum(0, lengths - max_length).sum() / lengths.sum()
    message = f"rows longer than max_length = {max_length}, which cuts off {lost:.1%} of all tokens"
    beside = [f"{n:,} tokens" for n in lengths[long][:KEPT]]
    severity: Severity = "warning" if long.mean() > LONG else "note"
    if adapter.windowed:
        message = f"rows read in more than one window of max_length = {max_length}: nothing is cut off"
        severity = "note"
    findings = [*at("length", severity, name, rows, long, message, roles, beside)]
    lacking = {
        "unknown": (unknown, lengths, "with unknown tokens", "tokens"),
        "uncovered": (uncovered, characters, "with characters in no token", "characters"),
    }
    for kind, (counts, totals, what, unit) in lacking.items():
        share = counts.sum() / max(1, totals.sum())
        if share > UNKNOWN / 20:
            severity = "warning" if share > UNKNOWN else "note"
            beside = [f"{counts[i]:,} of {totals[i]:,} {unit}" for i in np.flatnonzero(counts)[:KEPT]]
            message = f"rows {what}, {share:.1%} of all {unit}"
            findings += at(kind, severity, name, rows, counts > 0, message, roles, beside)
    quantiles = zip(("median", "95%", "longest"), np.quantile(lengths, [0.5, 0.95, 1.0]), strict=True)
    return {key: int(value) for key, value in quantiles}, findings


def _counted(tokenizer: Any, texts: pa.Array) -> Iterator[tuple[np.ndarray, ...]]:
    """Of some texts after the other: how many tokens each has without special ones, unknown tokens,
    characters in no token, and characters."""
    special = tokenizer.num_special_tokens_to_add(pair=False)
    slices = (texts.slice(start, TOGETHER) for start in range(0, max(1, len(texts)), TOGETHER))
    for some in progress.told(slices, len(texts), "texts tokenized", len):
        part = some.to_pylist()
        offsets, tokens, _ = tokenization.encode(tokenizer, part, None, UNTRUNCATED)
        strange = np.concatenate([[0], np.cumsum(tokens["input_ids"] == tokenizer.unk_token_id)])
        yield np.diff(offsets) - special, np.diff(strange[offsets]), *coverage.of_texts(tokenizer, part)


# --- for a person


def show(report: Report, limit: int, width: int | None = None) -> None:
    """Prints the sets, then every finding with `limit` examples and their places."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    def cell(value: str, style: str = "") -> Text:
        return Text(shown(value, most=400), style)

    console = Console(width=width, highlight=False)
    overview = Table("set", box=SIMPLE_HEAD, pad_edge=False)
    overview.add_column("rows", justify="right")
    lengths = (
        ("tokens: median", "95%", "longest") if any("tokens" in of for of in report.sets.values()) else ()
    )
    for column in lengths:
        overview.add_column(column, justify="right")
    overview.add_column("labels", overflow="fold")
    overview.add_column("source", overflow="fold")
    for name, of in report.sets.items():
        tokens = [f"{n:,}" for n in of.get("tokens", {}).values()]
        overview.add_row(
            *map(cell, (name, f"{of['rows']:,}", *tokens)),
            Text(_shares(of["labels"])),
            cell(Path(of["where"]).name),
        )
    console.print(overview)
    for finding in report.findings:
        head = Table.grid(padding=(0, 2, 0, 0))
        for least in (7, max(map(len, report.sets)), 6):
            head.add_column(min_width=least, justify="right" if least == 6 else "left", no_wrap=True)
        share = finding.count / report.sets.get(finding.set, {"rows": np.inf})["rows"]
        of_rows = finding.message.startswith("rows") and finding.check != "unreadable"
        part = f" ({share:.1%} of the set)" if of_rows and share >= 0.001 else ""
        head.add_row(
            cell(finding.severity, STYLES[finding.severity]),
            cell(finding.set),
            f"{finding.count:,}",
            cell(finding.phrase + part),
        )
        console.print(head)
        where = f"{report.sets.get(finding.set, {}).get('where')}, "
        columns = [[place.removeprefix(where) for place in finding.places[:limit]]] if finding.places else []
        body = Table.grid(padding=(0, 2, 0, 0))
        for places in columns:
            body.add_column(no_wrap=True, style="dim", min_width=min(36, max(map(len, places), default=0)))
        body.add_column(no_wrap=True, overflow="ellipsis")
        for row in zip(*columns, finding.examples[:limit], strict=True):
            body.add_row(*map(cell, row))
        console.print(Padding(body, (0, 0, 1, 9), expand=False))
    totals = {kind: sum(finding.severity == kind for finding in report.findings) for kind in STYLES}
    counts = [f"{n} {kind}" if n == 1 else f"{n} {kind}s" for kind, n in totals.items() if n]
    console.print(Text(", ".join(counts) or "nothing to report", "bold"))
    for line in (*report.notes, *(f"not checked: {what}" for what in report.skipped)):
        console.print(cell(line, "dim"))


def _shares(labels: Mapping[str, int]) -> str:
    total = sum(labels.values())
    shares = [f"{excerpt(label, most=40)} {n / total:.1%}" for label, n in list(labels.items())[:3]]
    return "\n".join([*shares, f"and {len(labels) - 3} more"][: len(labels)])
