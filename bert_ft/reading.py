"""Small files and JSON that somebody else wrote: regular, of a bounded size, and parsed without surprises."""

from __future__ import annotations

import ast
import json
import re
import stat
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bert_ft.errors import UNSEEN, InputError

DEEPEST = 50  # levels of a JSON value that are read
HALF = re.compile("[\ud800-\udfff]")  # half a surrogate pair: no character, and nothing that UTF-8 can hold
PYTHON = re.compile(
    r"""\s*(?:(?P<text>'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*")|(?P<name>True|False|None)\b|(?P<close>[\])}])
    |[\[({,:]|-?\d+(?:\.\d*)?(?:[eE][+-]?\d+)?)\s*""",
    re.VERBOSE | re.DOTALL,
)
TOKENS = re.compile(r'"(?:[^"\\]|\\.)*"?|[\[\]{}]', re.DOTALL)

ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+:)/")


def path(value: str | Path, where: str = "") -> Path:
    """A path that somebody gave, `~` expanded.

    Raises:
        InputError: a NUL in it, or a home folder that is not there: no file can have this name; or an address
            (s3://...), which as a path would be a folder `s3:` right here.
    """
    if "\0" in str(value):
        raise InputError(f"a path can't hold a NUL character: {value!r:.100}", where=where)
    refuse_address(value)
    try:
        return Path(value).expanduser()
    except RuntimeError:
        raise InputError("the home folder of this user can't be found", where=str(value)) from None


def refuse_address(value: str | Path) -> None:
    """Raises InputError: the address of a storage, unless a folder that is right here is called like its
    scheme."""
    if (match := ADDRESS.match(str(value))) and not Path(match[1]).exists():
        raise InputError(
            f"an address ({match[1]}//) is no path of a file or folder",
            where=str(value),
            remedy="copy it here, or mount the storage (rclone mount, s3fs, gcsfuse) and name its folder",
        )


def inside(name: str, folder: Path, where: str) -> Path:
    """The file that a file in `folder` names.

    Raises:
        InputError: it is absolute, or leads out of the folder.
    """
    refuse_address(name)
    relative = Path(name)
    if "\0" in name or relative.is_absolute() or name.startswith("~") or ".." in relative.parts:
        raise InputError(
            f"'{name}' points outside the folder of the file that names it",
            where=where,
            remedy="use the relative path of a file in that folder or below it",
        )
    return folder / relative


def text(file: Path, most: int) -> str:
    """The text of a UTF-8 file of at most `most` bytes.

    Raises:
        InputError: there is none, it is no regular file (a pipe, a device, a folder), too large, or not
            UTF-8.
    """
    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for somebody to write into it
            raise InputError("not a regular file", where=str(file))
        if status.st_size > most:
            message = (
                f"the file has {status.st_size / 1e6:,.1f} MB; a file of this kind may have at most "
                f"{most / 1e6:,.0f} MB"
            )
            raise InputError(message, where=str(file), remedy="check that this is the right file")
        return file.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        message = f"byte {error.object[error.start]:#04x} is not UTF-8"
        raise InputError(message, where=str(file), remedy="save the file as UTF-8") from None
    except (OSError, ValueError) as error:
        raise InputError(getattr(error, "strerror", None) or str(error), where=str(file)) from None


# --- JSON


def of_python(document: str) -> str | None:
    """The JSON text that says what a text of Python literals says: lists, tuples, dicts, strings, numbers,
    True, False and None. None where it is anything else. Nothing is evaluated."""
    parts = []
    end = 0
    while token := PYTHON.match(document, end):
        end = token.end()
        if token["text"] is not None:
            if (text := python_string(token["text"])) is None:
                return None
            parts.append(json.dumps(text))
        elif token["name"] is not None:
            parts.append({"True": "true", "False": "false", "None": "null"}[token["name"]])
        elif token["close"] is not None:
            if parts and parts[-1] == ",":  # ("a",) and ["a", "b",]
                parts.pop()
            parts.append(token["close"].replace(")", "]"))
        else:
            parts.append(token[0].strip().replace("(", "["))
    return " ".join(part for part in parts if part) if end == len(document) and parts else None


def python_string(literal: str) -> str | None:
    """The string that a Python literal with its quotes stands for; None where it stands for none."""
    if "\\" not in literal:
        return literal[1:-1]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of an escape that Python does not know, which stays as it is
            return str(ast.literal_eval(literal))
    except (ValueError, SyntaxError, MemoryError):
        return None


class Huge(str):
    """The digits of a whole number that Python refuses to read."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"a number of {len(self.lstrip('-')):,} digits"


class TooDeep:
    """What takes the place of a value below `DEEPEST` levels."""

    def __repr__(self) -> str:
        return f"a value nested more than {DEEPEST} levels deep"


class Doubled(dict[str, Any]):
    """An object with a key that is there twice, in `keys_twice`; the last one's value counts, as in
    `json`."""

    keys_twice: frozenset[str] = frozenset()


class Row(dict[str, Any]):
    """An object with values that can't be taken as they stand: `faults`, key -> what is wrong with it."""

    faults: dict[str, str]


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("a key appears twice")
    return value


PLAIN = json.JSONDecoder(object_pairs_hook=_once)


def loads(document: str) -> Any:
    """The value of a JSON text; where one part can't be held, the rest can be read all the same.

    An object with such parts (also each of a list of them) is a `Row`: a number of more digits than Python
    reads is there as `Huge`, what is nested too deeply has `TooDeep` in it, and of a doubled key the last
    value is taken.

    Raises:
        json.JSONDecodeError: it is no JSON.
    """
    try:
        return PLAIN.decode(document)
    except json.JSONDecodeError:
        if document.startswith("\ufeff"):
            raise json.JSONDecodeError("the text starts with a byte-order mark", document, 0) from None
        raise
    except (RecursionError, ValueError):
        # more levels, or more digits of a number, than Python reads; a doubled key
        value = _lenient(document)
    return [_row(item) for item in value] if isinstance(value, list) else _row(value)


def _lenient(document: str) -> Any:
    def of_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) == len(pairs):
            return value
        counts = Counter(key for key, _ in pairs)
        value = Doubled(value)
        value.keys_twice = frozenset(key for key, n in counts.items() if n > 1)
        return value

    def whole(digits: str) -> int | Huge:
        try:
            return int(digits)
        except ValueError:
            return Huge(digits)

    shallow = _shallow(document)
    cut = None if shallow == document else lambda name: TooDeep() if name == "-Infinity" else float(name)
    return json.loads(shallow, object_pairs_hook=of_pairs, parse_int=whole, parse_constant=cut)


def strict(document: str) -> Any:
    """`loads`, of what is read as a whole. Raises ValueError where any part can't be taken as it stands."""
    value = loads(document)
    for row in value if isinstance(value, list) else [value]:
        for key, fault in getattr(row, "faults", {}).items():
            raise ValueError(f"'{key}' {fault}")
    return value


def dumps(value: Any, indent: int | None = None) -> str:
    """A value as JSON that can be shown and written anywhere: what can't be seen, half a surrogate pair too,
    is an escape of JSON, so that the value is the same. What JSON does not know is written as its text."""
    document = json.dumps(value, indent=indent, ensure_ascii=False, default=str)
    return UNSEEN.sub(lambda match: "\n" if match[0] == "\n" else json.dumps(match[0])[1:-1], document)


def fits(value: Any, shape: Any) -> bool:
    """Whether a value of JSON has the shape of an example: its kind, and that of all items where the example
    has one. Where it has a number, null will do too, which stands for what is undefined."""
    if isinstance(shape, dict):
        inner = next(iter(shape.values()), None)
        return isinstance(value, dict) and (
            inner is None or all(fits(item, inner) for item in value.values())
        )
    if isinstance(shape, list):
        return isinstance(value, list) and (not shape or all(fits(item, shape[0]) for item in value))
    if isinstance(shape, str):
        return isinstance(value, str)
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))


def _row(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    row = Row(value)
    row.faults = {key: f"holds {fault}" for key, item in value.items() if (fault := next(faults(item), ""))}
    row.faults |= dict.fromkeys(getattr(value, "keys_twice", ()), "appears twice")
    return row if row.faults else value


def faults(value: Any) -> Iterator[str]:
    """What is in a value that can't be taken as it stands."""
    if isinstance(value, (Huge, TooDeep)):
        yield repr(value)
    elif isinstance(value, Doubled):
        yield f"the key '{min(value.keys_twice)}' twice"
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from faults(item)


def _shallow(document: str) -> str:
    """The text with -Infinity in the place of every list and object below `DEEPEST` levels."""
    depth = 0
    start = 0
    parts = []
    for token in TOKENS.finditer(document):
        if token[0] in ("[", "{"):
            depth += 1
            if depth == DEEPEST + 1:
                parts.append(document[start : token.start()] + "-Infinity")
        elif token[0] in ("]", "}"):
            depth -= 1
            if depth == DEEPEST:
                start = token.end()
    # where brackets are missing, the rest is no JSON, whatever its depth
    return "".join(parts) + (document[start:] if depth <= DEEPEST else "")
