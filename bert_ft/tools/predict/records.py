"""What is known of the answers in a folder: which are there, what each was made from, and who is at work on
which. A process may be killed at any moment, and several may work side by side.

A record is written when the answers are whole and before they take their name, and it holds the digest of
their bytes. So answers that can be seen have a record, and a record whose answers are not there yet, or are
older ones, is known by the digest.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from bert_ft import files, reading
from bert_ft.errors import InputError, disk, no_locks, shown
from bert_ft.tools.predict.files import Outcome
from bert_ft.tools.predict.folders import Item

FOLDER = ".answered"
"""In the folder of the answers; hidden, so that nothing that reads a folder of tables takes it for one."""
LARGEST = 2**30  # bytes of a record: a line for each row at fault


@dataclass
class Record:
    """What is known of one file's answers.

    Attributes:
        made_by: what they were made with: the model, and the settings of the call.
        source, answers: bytes and sha256 of the file and of its answers.
        rows: that were read; bad: of these at fault. told: the lines that were told about them.
        counts: of the encoded rows, as `Features` has them.
    """

    name: str
    made_by: dict[str, Any]
    source: dict[str, Any]
    answers: dict[str, Any]
    rows: int
    bad: int
    told: list[str]
    counts: dict[str, int]


SHAPES: dict[str, Any] = {
    "name": "", "made_by": {}, "source": {}, "answers": {}, "rows": 1, "bad": 1, "told": [""], "counts": {},
}  # fmt: skip


class Records:
    """The records of a folder of answers.

    Args:
        folder: of the answers.
        made_by: what answers are made with now.
    """

    def __init__(self, folder: Path, made_by: Mapping[str, Any]) -> None:
        self.folder, self.made_by = folder / FOLDER, dict(made_by)
        files.refuse_link(self.folder)
        with disk(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            self.locks = files.opened(self.folder / "locks", "ab")

    def close(self) -> None:
        """Ends all claims."""
        self.locks.close()

    def refuse_foreign(self, item: Item) -> None:
        """Raises InputError where something lies in the place of a file's answers that was never written as
        such."""
        files.refuse_link(item.target)
        if item.target.exists() and not self._file(item).is_file():
            raise InputError(
                "this file is in the way: it was not written by this command, and is left alone",
                where=str(item.target),
                remedy="move it away, or choose another folder with --output",
            )

    def valid(self, item: Item) -> tuple[Record | None, str]:
        """The record of a file's answers where they are those that would be made now, byte for byte; else
        None, and in words why not; no words where there are no answers."""
        record = self._read(item)
        if record is None or not item.target.is_file():
            return None, ""
        if record.made_by != self.made_by:
            same = record.made_by.get("model") == self.made_by.get("model")
            return None, "other settings" if same else "another model"
        if not _equals(Path(item.source), record.source):
            return None, "its rows have changed"
        if not _equals(item.target, record.answers):
            return None, "the answers have changed"
        return record, ""

    def mixed(self, items: Iterable[Item]) -> int:
        """How many of these files have answers that were made with something else than ours."""
        found = (self._read(item) for item in items)
        return sum(record is not None and record.made_by != self.made_by for record in found)

    def of_others(self, items: Iterable[Item]) -> list[str]:
        """The names of answers in the folder that are of none of these files."""
        ours = {f"{_key(item.name)}.json" for item in items}
        found = []
        for file in sorted(set(self.folder.glob("*.json")), key=str):
            if file.name not in ours and (record := _record(file)) is not None:
                found += [record.name] if (self.folder.parent / record.name).is_file() else []
        return sorted(found)

    @contextmanager
    def claimed(self, item: Item) -> Iterator[bool]:
        """Inside, no other process answers this file; False where one does. A process that ends, however it
        does, leaves its claims."""
        # one byte of the lock file for each name; POSIX locks hold on network file systems too
        place = int(_key(item.name)[:15], 16)
        try:
            fcntl.lockf(self.locks, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
        except (BlockingIOError, PermissionError):  # EAGAIN or EACCES, as the system likes
            yield False
            return
        except OSError as error:
            raise no_locks(self.folder.parent, error) from None
        try:
            yield True
        finally:
            fcntl.lockf(self.locks, fcntl.LOCK_UN, 1, place)

    @contextmanager
    def writing(self, item: Item, outcome: Outcome, told: list[str]) -> Iterator[Path]:
        """Gives the file that the answers are written to; at the end the record is written, and the answers
        take their name. After an error neither is there. The file is claimed.

        Args:
            outcome, told: what became of the rows, and what was told of them, by then.
        Raises:
            InputError: the rows were changed meanwhile; a link is in the way.
        """
        source, before = Path(item.source), _status(Path(item.source))
        # names that the next one knows, so that nothing stays of one that was killed
        temporary = self.folder / f"{_key(item.name)}.tmp"
        unfinished = self.folder / f"{_key(item.name)}.json.tmp"
        mine = (temporary, temporary.with_name(f"{temporary.name}.older"), unfinished)
        _remove(mine)
        try:
            _create(temporary).close()
            yield temporary
            try:
                read, after = _digest(source), _status(source)
            except OSError as error:
                raise InputError(error.strerror or str(error), where=item.source) from None
            if before != after:
                raise InputError("the file was changed while it was answered", where=item.source)
            answers, bad = _digest(temporary), len(outcome.bad)
            record = Record(
                shown(item.name), self.made_by, read, answers, outcome.rows, bad, told, dict(outcome.counts)
            )
            self._make_folders(item)
            files.refuse_link(item.target)
            with _create(unfinished) as stream:
                stream.write(json.dumps(asdict(record)) + "\n")
                stream.flush()
                os.fsync(stream.fileno())
            unfinished.replace(self._file(item))
            temporary.replace(item.target)
        finally:
            _remove(mine)

    def _make_folders(self, item: Item) -> None:
        top = self.folder.parent
        for place in reversed(item.target.relative_to(top).parents[:-1]):
            files.refuse_link(top / place)
        item.target.parent.mkdir(parents=True, exist_ok=True)

    def _file(self, item: Item) -> Path:
        return self.folder / f"{_key(item.name)}.json"

    def _read(self, item: Item) -> Record | None:
        """The record; None where there is none, or none that can be read: then the file is answered."""
        return _record(self._file(item))


def _record(file: Path) -> Record | None:
    """The record that a file holds; None where it holds none."""
    try:
        value = reading.strict(reading.text(file, LARGEST))
    except (InputError, ValueError):
        return None
    if isinstance(value, dict):
        value = {"counts": {}} | value  # records of earlier versions have none
    if not isinstance(value, dict) or value.keys() != SHAPES.keys():
        return None
    if not all(reading.fits(value[key], SHAPES[key]) for key in SHAPES):
        return None
    numbers = (value["rows"], value["bad"], *value["counts"].values())
    return Record(**value) if all(type(number) is int for number in numbers) else None


def _create(path: Path) -> IO[str]:
    """A new file of this name; nothing else may bear it."""
    how = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW
    return os.fdopen(os.open(path, how, 0o666), "w", encoding="utf-8")


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _key(name: str) -> str:
    return hashlib.sha256(os.fsencode(name)).hexdigest()[:32]


def _digest(path: Path) -> dict[str, Any]:
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return {"bytes": stream.tell(), "sha256": digest}


def _equals(path: Path, recorded: Mapping[str, Any]) -> bool:
    """Whether a file has the recorded bytes; it is read only where their number is the same."""
    try:
        return path.stat().st_size == recorded.get("bytes") and _digest(path) == dict(recorded)
    except OSError:
        return False


def _status(path: Path) -> tuple[int, ...]:
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns
