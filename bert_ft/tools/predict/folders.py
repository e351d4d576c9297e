"""A folder or a glob of files of rows, and where the answers of each go."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bert_ft import files, reading
from bert_ft.errors import InputError
from bert_ft.tools.predict.readers import FORMATS, format_of
from bert_ft.tools.predict.writers import NO_TEXT

KINDS = {**{f".{kind}": kind for kind in FORMATS}, ".json": "jsonl"}
"""What a suffix says of a file's rows."""
SHOWN = 3  # names of many that a message lists


@dataclass(frozen=True)
class Item:
    """One file to answer.

    Attributes:
        name: the path of its answers below the output folder.
        source: the file, as a person would name it. size: its bytes.
        target: where its answers go. write_as: their format.
    """

    name: str
    source: str
    size: int
    target: Path
    write_as: str


@dataclass(frozen=True)
class Plan:
    """The files to answer, by name, into which folder, and those that are left alone: their suffixes name no
    format of rows."""

    items: list[Item]
    output: Path
    others: list[str]

    @property
    def left_alone(self) -> str:
        """What there is to say of those."""
        return f"{len(self.others):,} files are left alone, which have no suffix of rows: {few(self.others)}"


def is_many(source: str) -> bool:
    """Whether a source names a folder, or is a glob: a file that is there is one file, whatever its name."""
    place = reading.path(source)
    return source != "-" and not place.is_file() and (place.is_dir() or glob.has_magic(source))


def plan(source: str, target: str, read_as: str | None = None, write_as: str | None = None) -> Plan:
    """What is to be answered, and where to.

    Args:
        source: a folder, of which all files are taken, those of its folders too; or a glob, `**` among its
            parts. Hidden files are passed over.
        target: the folder of the answers: a file's have its name relative to the folder, or to the part of a
            glob before the first wildcard.
        read_as: the format of all files; by default each one's suffix says, and others are left alone.
        write_as: the format of the answers; by default that of the file, and jsonl for txt.
    Raises:
        InputError: no folder to write to, or one that lies among the files; links; nothing to answer; two
            files whose answers would have one name.
    """
    if write_as == "txt":
        raise InputError(NO_TEXT, where=target, remedy="--to jsonl")
    for given in (read_as, write_as):
        format_of("", given)
    root, paths = _below(source)
    output = _output(target, source, root)
    paths = sorted(path for path in paths if not _hidden(path.relative_to(root)))
    for path in paths:
        _refuse_links(path, root)
    chosen = [path for path in paths if read_as is not None or path.suffix.lower() in KINDS]
    if not chosen:
        known = ", ".join(FORMATS)
        there = f"; it has {few([str(path) for path in paths])}" if paths else ""
        raise InputError(
            f"no file of rows is there{there}", where=source, remedy=f"{known}, or --from for other suffixes"
        )
    items: dict[str, Item] = {}
    for path in chosen:
        kind = _written_as(path, read_as, write_as)
        name = _named(path.relative_to(root), kind).as_posix()
        if name in items:
            raise InputError(
                f"the answers of {items[name].source} and {path} would both be {name}",
                where=target,
                remedy="leave out --to, answer one of them elsewhere, or give it another name",
            )
        items[name] = Item(name, str(path), path.stat().st_size, output / name, kind)
    return Plan(list(items.values()), output, [str(path) for path in paths if path not in {*chosen}])


def _below(source: str) -> tuple[Path, list[Path]]:
    """The folder that names are relative to, and the files below it that are meant."""
    place = reading.path(source)
    if place.is_dir():
        return place, list(_walk(place))
    if not glob.has_magic(source):
        raise InputError("no such file or folder", where=source)
    parts = place.parts
    fixed = next(number for number, part in enumerate(parts) if glob.has_magic(part))
    root = Path(*parts[:fixed])
    found = {Path(name) for name in glob.glob(str(place), recursive=True)}
    return root, [path for path in found if not path.is_dir() or path.is_symlink()]


def _walk(folder: Path) -> Iterator[Path]:
    """The files below a folder, and the links to folders, whose files are not looked at."""

    def unreadable(error: OSError) -> None:
        raise InputError(f"this folder can't be read: {error.strerror}", where=str(error.filename))

    for place, folders, names in os.walk(folder, onerror=unreadable):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(place, name) for name in names)
        yield from (path for name in folders if (path := Path(place, name)).is_symlink())


def _hidden(relative: Path) -> bool:
    return any(part.startswith(".") for part in relative.parts)


def _refuse_links(path: Path, root: Path) -> None:
    for place in (path, *path.parents):
        if place == root:
            return
        if place.is_symlink():
            raise InputError(
                "this is a link; links among many files are not followed, so that none is answered twice",
                where=str(place),
                remedy="name what it points to, or a glob that leaves it out",
            )


def _output(target: str, source: str, root: Path) -> Path:
    """The folder of the answers; it neither lies among the files nor holds them."""
    if target == "-":
        raise InputError(
            "the answers of many files need a folder", where=source, remedy="name one with --output FOLDER"
        )
    output = reading.path(target)
    files.refuse_link(output)
    if output.exists() and not output.is_dir():
        raise InputError("this is a file; the answers of many files need a folder", where=target)
    ours, theirs = output.resolve(), root.resolve()
    one_level = not root.joinpath(source).is_dir() and glob.has_magic(source) and "**" not in source
    # answers of a glob without ** lie deeper than what it can match
    among = ours == theirs or (ours.is_relative_to(theirs) and not one_level)
    if among or theirs.is_relative_to(ours):
        relation = "lies among the files to answer" if among else "holds the files to answer"
        raise InputError(
            f"this folder {relation}: answers would be answered, or rows overwritten",
            where=target,
            remedy="name a folder beside them",
        )
    return output


def _written_as(path: Path, read_as: str | None, write_as: str | None) -> str:
    kind = read_as or KINDS[path.suffix.lower()]
    return write_as or ("jsonl" if kind == "txt" else kind)


def _named(relative: Path, kind: str) -> Path:
    """The name of a file's answers: its own, with the suffix of their format."""
    suffix = relative.suffix.lower()
    if suffix == f".{kind}":
        return relative
    stem = relative.with_suffix("") if suffix in KINDS else relative
    return stem.with_name(f"{stem.name}.{kind}")


def few(names: list[str]) -> str:
    """The first of many names, and how many more there are."""
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
