"""Bytes of a file or a stream as text, in the encoding that is named, or that a byte-order mark tells."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import IO, TextIO

from bert_ft.errors import InputError

UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
BLOCK = 8192  # bytes that are looked at at a time to tell which encoding a file is in
SURE = 8  # characters beyond ASCII that are UTF-8 by chance less than once in a million times
NAMES = "--set data.encoding=gb18030 (Chinese), cp1252 (Western Europe), ..."


def known(encoding: str) -> str:
    """The encoding's usual name: utf8 and UTF_8 are utf-8."""
    try:
        return codecs.lookup(encoding).name
    except LookupError:
        remedy = "utf-8, latin-1, ..."
        raise InputError(f"unknown encoding '{encoding}'", where="data.encoding", remedy=remedy) from None


def decode(path: Path, encoding: str, lenient: bool = False) -> str:
    """The file's text without a byte-order mark; bytes that do not fit are an error with their line, or if
    `lenient` halves of surrogate pairs, as `surrogateescape` has them."""
    raw, encoding = path.read_bytes(), known(encoding)
    codec = _codec(encoding, (raw[at : at + BLOCK] for at in range(0, len(raw), BLOCK)), str(path))
    try:
        return raw.decode(codec, "surrogateescape" if lenient else "strict")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        message = f"byte {raw[error.start]:#04x} is not {codec.removesuffix('-sig')}"
        remedy = f"save the file as UTF-8, or name its encoding: {NAMES}"
        raise InputError(message, where=f"{path}, line {line}", remedy=remedy) from None


def opened(raw: IO[bytes], encoding: str, where: str) -> TextIO:
    """A stream of bytes as one of text, read as `decode` reads a file: without a byte-order mark, and with
    bytes that do not fit as halves of surrogate pairs. Line ends stay as they are. Of a pipe no more than the
    beginning tells the encoding."""
    encoding = known(encoding)
    if raw.seekable():
        start = raw.tell()
        codec = _codec(encoding, iter(lambda: raw.read(BLOCK), b""), where)
        raw.seek(start)
    buffer = io.BufferedReader(raw)  # type: ignore[type-var] # of anything that has readinto
    if not raw.seekable():
        codec = _codec(encoding, iter([buffer.peek(BLOCK)]), where)
    return io.TextIOWrapper(buffer, encoding=codec, errors="surrogateescape", newline="")


def _codec(encoding: str, blocks: Iterator[bytes], where: str) -> str:
    """What decodes a file of these blocks of bytes, no more of which are read than it takes. The byte-order
    mark of UTF-8 counts before the encoding that is named, since no text in another begins with it; that of
    UTF-16 where UTF-8 is named.

    Raises:
        InputError: UTF-16 without a mark, or UTF-8 where another encoding is named, which would read it as
            other characters without a fault.
    """
    first = next(blocks, b"")
    if first.startswith(codecs.BOM_UTF8):
        return "utf-8-sig"
    if encoding != "utf-8":
        if not encoding.startswith("utf") and _is_utf8(chain([first], blocks)):
            remedy = "name its encoding, --set encoding=utf-8, or save all files in one"
            raise InputError(f"the file is UTF-8, and not {encoding}", where=where, remedy=remedy)
        return encoding
    if first.startswith(UTF16):
        return "utf-16"
    if b"\0" in first[:2]:
        remedy = 'set data.encoding = "utf-16-le", or "utf-16-be"'
        raise InputError("the file is UTF-16 without a byte-order mark", where=where, remedy=remedy)
    return "utf-8-sig"


def _is_utf8(blocks: Iterable[bytes]) -> bool:
    """Whether the bytes of a file are UTF-8, beyond doubt, as far as it takes to tell: many a file begins
    with pages of ASCII, the same in all encodings. The last character may be cut."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    count = 0
    for block in blocks:
        try:
            text = decoder.decode(block)
        except UnicodeDecodeError:
            return False
        count += 0 if text.isascii() else sum(not character.isascii() for character in text)
        if count >= SURE:
            return True
    return False
