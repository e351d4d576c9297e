"""Files at fault, made by chance: bytes and lines of good files are changed, and whoever reads them must answer.

    python -m tests.fuzzing.mutants --number 10000 --seed 0 --faults FOLDER

Each reader has good files; a mutant is one of them after one change or a few, drawn by its number, so that a number and a
reader say which file it is. A reader may return, or raise a BertFtError; anything else, more than five seconds or a
gigabyte is a fault, and the file is kept in `--faults`.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bert_ft.errors import BertFtError

SECONDS: float = 5
MEGABYTES = 1000
TOKENS = [
    b"", b"\0", b"\n", b"\r", b"\r\n", b"\n\n", b'"', b"'", b",", b"\t", b"\\", b"[", b"]", b"{", b"}", b"null", b"true",
    b"NaN", b"-1", b"0", b"1e999", b"99999999999999999999", b"-9223372036854775809", b"0.5", b"\xff", b"\xef\xbb\xbf",
    b"\xed\xa0\x80", b"\xc3", "\u4e2d\u6587".encode(), "\u200b".encode(), "\u2028".encode(), b"#", b"---", b"=", b":",
    b"__class__", b"../..", b"/dev/null", b"%s", b"{0}", b"<b>", b"\x1b[31m", b"O", b"B-PER", b"I-", b"text", b"label",
]  # fmt: skip
Read = Callable[[Path], object]


def mutated(content: bytes, random: np.random.Generator) -> bytes:
    """A file after one change, or a few."""
    for _ in range(min(random.geometric(0.5), 6)):
        size = len(content)
        at = int(random.integers(size + 1))
        to = min(size, at + int(random.integers(1, 1 + max(1, size // 4))))
        kind = random.integers(8)
        if kind == 0 and size:  # a bit
            place = at % size
            content = (
                content[:place] + bytes([content[place] ^ (1 << random.integers(8))]) + content[place + 1 :]
            )
        elif kind == 1:  # a piece less
            content = content[:at] + content[to:]
        elif kind == 2:  # a piece twice
            content = content[:to] + content[at:to] + content[to:]
        elif kind == 3:  # the end is missing
            content = content[:at]
        elif kind == 4:  # something in between, or in the place of as much
            token = TOKENS[random.integers(len(TOKENS))]
            content = content[:at] + token + content[at + (len(token) if random.random() < 0.5 else 0) :]
        elif kind == 5:  # a word is another one
            words = content.split(b" ")
            words[random.integers(len(words))] = TOKENS[random.integers(len(TOKENS))]
            content = b" ".join(words)
        else:  # lines change places, or one is missing
            lines = content.split(b"\n")
            one, other = random.integers(len(lines), size=2)
            if kind == 6:
                lines[one], lines[other] = lines[other], lines[one]
            else:
                del lines[one]
            content = b"\n".join(lines)
    return content


@dataclass
class Reader:
    """Who reads, and good files for it: name -> content; the first is changed, the others lie beside it."""

    read: Read
    files: Mapping[str, bytes]


@dataclass
class Outcome:
    """What became of the mutants of a reader."""

    read: int = 0
    refused: int = 0
    faults: list[str] = field(default_factory=list)
    slowest: float = 0.0


@contextmanager
def _limited() -> Iterator[None]:
    def late(*_: Any) -> None:
        raise TimeoutError(f"more than {SECONDS} s")

    old = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def judged(reader: Reader, file: Path) -> tuple[str, str]:
    """What becomes of a file: "read", "refused" or "failed", and what is wrong with that; nothing where it is empty."""
    try:
        with _limited():
            reader.read(file)
        return "read", ""
    except BertFtError as error:
        odd = not str(error).strip() or "\x1b" in str(error)
        return "refused", f"an empty message, or one with control characters: {error!r}" if odd else ""
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = next(
            (f"{f.filename.rpartition('bert_ft/')[2]}:{f.lineno}"
             for f in reversed(traceback.extract_tb(error.__traceback__)) if "/bert_ft/" in f.filename),
            f"{last.filename}:{last.lineno}",
        )  # fmt: skip
        return "failed", f"{type(error).__name__}: {str(error)[:120]} ({place})"


def fuzz(name: str, reader: Reader, numbers: range, seed: int, faults: Path | None = None) -> Outcome:
    """Has a reader read its mutants of these numbers."""
    outcome = Outcome()
    main, *beside = reader.files
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for number in numbers:
            random = np.random.default_rng([seed, number, *name.encode()])
            for each in beside:
                (folder / each).write_bytes(reader.files[each])
            (folder / main).write_bytes(content := mutated(reader.files[main], random))
            before, start = _peak(), time.monotonic()
            became, fault = judged(reader, folder / main)
            outcome.read += became == "read"
            outcome.refused += became == "refused"
            if fault:
                outcome.faults.append(f"{name} {number}: {fault}")
                if faults is not None:
                    (faults / f"{name.replace('/', '-')}-{seed}-{number}-{main}").write_bytes(content)
            outcome.slowest = max(outcome.slowest, time.monotonic() - start)
            if _peak() - before > MEGABYTES:
                outcome.faults.append(f"{name} {number}: more than {MEGABYTES} MB")
    return outcome


# --- who reads --------------------------------------------------------------------------------------------------------

ROWS = [
    {"text": "a warm and funny film", "label": "good"}, {"text": "dull, \"flat\" and empty", "label": "bad"},
    {"text": "\u4e00\u90e8\u597d\u7535\u5f71", "label": "good"}, {"text": "the plot\nis thin", "label": "bad"},
] * 5  # fmt: skip


def _jsonl(rows: list[Any]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def _table(rows: list[dict[str, Any]], delimiter: str) -> bytes:
    import csv
    import io

    stream = io.StringIO()
    writer = csv.DictWriter(stream, rows[0], delimiter=delimiter, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue().encode()


def _parquet(rows: list[dict[str, Any]], arrow: bool = False) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    stream = pa.BufferOutputStream()
    table = pa.Table.from_pylist(rows)
    if arrow:
        with pa.ipc.new_file(stream, table.schema) as writer:
            writer.write_table(table)
    else:
        pq.write_table(table, stream)
    return stream.getvalue().to_pybytes()


def _checked(task: str, **keys: Any) -> Read:
    """`check` of a file: what it returns is shown, too."""
    from rich.console import Console

    from bert_ft.tools.check import check

    def read(file: Path) -> object:
        # the set that is scored is the same file: one row will do
        report = check(task, train=str(file), validation=str(file), **keys)
        Console(file=open("/dev/null", "w"), width=100).print(report)  # noqa: SIM115
        return json.dumps(report.dumped()) if hasattr(report, "dumped") else report

    return read


def of_files() -> dict[str, Reader]:
    """Readers of data."""
    from bert_ft.config.catalog import load_task
    from bert_ft.data import left_out
    from tests.families.test_ner_formats import FORMS, TEXT

    numbers = [row | {"label": i / 7} for i, row in enumerate(ROWS)]
    several = [row | {"label": ["good", "long"][: 1 + i % 2]} for i, row in enumerate(ROWS)]
    shares = [row | {"votes": {"good": i % 3, "bad": 1}} for i, row in enumerate(ROWS)]
    words = [{"tokens": ["Anna", "saw", "Rome"], "tags": ["B-PER", "O", "B-LOC"]}] * 8
    spans = [{"text": TEXT, "label": [[0, 9, "PER"], [14, 18, "LOC"]]}] * 8
    squad = {"version": "2.0", "data": [{"title": "t", "paragraphs": [
        {"context": TEXT, "qas": [{"id": str(i), "question": "Who saw Rome?", "is_impossible": False,
                                   "answers": [{"text": "Anna Bell", "answer_start": 0}]} for i in range(12)]}]}]}  # fmt: skip
    flat = [{"id": str(i), "question": "Who?", "context": TEXT, "answers": {"text": ["Anna Bell"], "answer_start": [0]}}
            for i in range(12)]  # fmt: skip
    task = (
        b'family = "classification"\ntitle = "Reviews"\n[data]\ntrain = "rows.csv"\nevaluate = "rows.csv"\n'
        b'validation = "20%"\n[data.columns]\ntext = "text"\nlabel = "label"\n[recipe]\nlearning_rate = 2e-5\nepochs = 3\n'
        b'batch_size = 16\nmax_length = 128\n[metric]\ncompute = ["accuracy", "f1_macro"]\n[[reference]]\n'
        b'checkpoint = "bert-base-uncased"\nsource = "a paper"\nvalue = 90.5\nmetric = "accuracy"\n'
        b'split = "test"\nstatistic = "single run"\nruns = 1\nrecipe = { batch_size = 32 }\nconfidence = "S"\n'
    )
    tables = {"csv": _table(ROWS, ","), "tsv": _table(ROWS, "\t"), "jsonl": _jsonl(ROWS), "json": json.dumps(ROWS).encode(),
              "parquet": _parquet(ROWS), "arrow": _parquet(ROWS, arrow=True)}  # fmt: skip
    readers = {
        kind: Reader(_checked("classification"), {f"rows.{kind}": content})
        for kind, content in tables.items()
    }
    readers |= {
        "numbers": Reader(
            _checked("classification", **{"data.problem_type": "regression"}),
            {"rows.csv": _table(numbers, ",")},
        ),
        "sets": Reader(
            _checked("classification", **{"data.problem_type": "multi_label_classification"}),
            {"rows.jsonl": _jsonl(several)},
        ),
        "votes": Reader(_checked("classification", **{"data.soft": "votes"}), {"rows.jsonl": _jsonl(shares)}),
        "words": Reader(_checked("ner"), {"rows.jsonl": _jsonl(words)}),
        "spans": Reader(_checked("ner"), {"rows.jsonl": _jsonl(spans)}),
        "squad": Reader(_checked("qa"), {"rows.json": json.dumps(squad).encode()}),
        "questions": Reader(_checked("qa"), {"rows.jsonl": _jsonl(flat)}),
        "task": Reader(load_task, {"mine.toml": task}),
        "rows left out": Reader(
            lambda file: left_out._lines(file), {"out.csv": b"fingerprint,text\n" + b"a" * 64 + b",a film\n"}
        ),
    }
    for name, (file, content, *_) in FORMS.items():
        beside = {Path(file).with_suffix(".txt").name: TEXT.encode()} if file.endswith(".ann") else {}
        readers[name] = Reader(_checked("ner"), {file: content.encode()} | beside)
    return readers


def of_run(run: Path, work: Path) -> dict[str, Reader]:
    """Readers of a finished run's files, of which one is changed at a time, in a copy."""
    import bert_ft
    from bert_ft.pages import run_page
    from bert_ft.rundir.folder import RunDir

    copy = work / "run"
    shutil.copytree(run, copy)

    def page(place: str) -> Read:
        def read(file: Path) -> object:
            shutil.copyfile(file, copy / place)
            try:
                return run_page.html([run_page.view_of(RunDir(copy))])
            finally:
                shutil.copyfile(run / place, copy / place)

        return read

    def model(place: str) -> Read:
        def read(file: Path) -> object:
            shutil.copyfile(file, copy / place)
            try:
                return bert_ft.load(copy / "model").predict(["a warm film"])
            finally:
                shutil.copyfile(run / place, copy / place)

        return read

    def compared(file: Path) -> object:
        return bert_ft.compare(bert_ft.load(run), str(file))

    loaded = bert_ft.load(run)

    def predicted(file: Path) -> object:
        """Rows in are rows out, and rows that are told."""
        from bert_ft.tools.predict import files

        out = file.with_name("out.jsonl")
        outcome = files.predict(loaded.model, str(file), str(out))
        written = sum(1 for _ in out.open())
        assert written + len(outcome.bad) == outcome.rows, (written, outcome)
        return outcome

    lines = [
        {"row": i, "prediction": line["prediction"]}
        for i, line in enumerate(loaded.predictions("validation"))
    ]
    readers = {
        name: Reader(page(name), {Path(name).name: (run / name).read_bytes()})
        for name in ("task.toml", "results.json", "environment.json", "log.jsonl", "predictions/validation.jsonl",
                     "predictions/validation.rows.parquet")
    }  # fmt: skip
    readers |= {
        f"model/{name}": Reader(model(f"model/{name}"), {name: (run / "model" / name).read_bytes()})
        for name in ("config.json", "tokenizer_config.json", "tokenizer.json", "model.safetensors")
        if (run / "model" / name).is_file()
    }
    readers |= {
        "compared lines": Reader(compared, {"other.jsonl": _jsonl(lines)}),
        "compared table": Reader(compared, {"other.csv": _table(lines, ",")}),
    }
    for kind, content in (("csv", _table(ROWS, ",")), ("tsv", _table(ROWS, "\t")), ("jsonl", _jsonl(ROWS)),
                          ("parquet", _parquet(ROWS)), ("txt", b"a warm film\nflat\n" * 9)):  # fmt: skip
        readers[f"predict {kind}"] = Reader(predicted, {f"rows.{kind}": content})
    return readers


def tiny_run(folder: Path, checkpoint: str) -> Path:
    """A finished run of two steps."""
    import bert_ft

    bert_ft.finetune("classification", checkpoint, train=ROWS, validation=ROWS[:8], max_steps=2, max_length=24,
                     output=folder / "tiny", quiet=True, baselines=False)  # fmt: skip
    return folder / "tiny"


def good(reader: Reader) -> None:
    """Has a reader read its files as they are."""
    with tempfile.TemporaryDirectory() as folder:
        for name, content in reversed(reader.files.items()):
            (Path(folder) / name).write_bytes(content)
        reader.read(Path(folder) / name)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--number", type=int, default=10_000, help="of mutants, in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--checkpoint", default=".demo/all-MiniLM-L6-v2", help="that a run is made of, for its files"
    )
    parser.add_argument("--readers", nargs="*", default=[])
    parser.add_argument("--faults", type=Path, required=True)
    options = parser.parse_args()
    options.faults.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        readers = of_files() | of_run(tiny_run(Path(work), options.checkpoint), Path(work))
        chosen = {
            name: reader for name, reader in readers.items() if not options.readers or name in options.readers
        }
        each = -(-options.number // len(chosen))
        kinds: Counter[str] = Counter()
        print("| reader | mutants | read | refused | faults | slowest, s |\n|---|---:|---:|---:|---:|---:|")
        for name, reader in chosen.items():
            found = fuzz(name, reader, range(each), options.seed, options.faults)
            print(
                f"| {name} | {each} | {found.read} | {found.refused} | {len(found.faults)} | {found.slowest:.2f} |",
                flush=True,
            )
            for fault in found.faults:
                kinds[fault.partition(": ")[2]] += 1
                print(fault, file=sys.stderr, flush=True)
    for kind, count in kinds.most_common(50):
        print(count, kind, file=sys.stderr)


if __name__ == "__main__":
    main()
