"""Bytes of a file or a stream as text, in the encoding that is named, or that a byte-order mark tells."""

from __future__ import annotations

import codecs
import io
from pathlib import Path
from typing import IO, TextIO

from bert_ft.errors import InputError

UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


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
    codec = _codec(encoding, raw[:2], str(path))
    try:
        return raw.decode(codec, "surrogateescape" if lenient else "strict")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        message = f"byte {raw[error.start]:#04x} is not {codec.removesuffix('-sig')}"
        remedy = (
            'save the file as UTF-8, or name its encoding: --set data.encoding=latin-1 (or "cp1252", '
            '"gb18030")'
        )
        raise InputError(message, where=f"{path}, line {line}", remedy=remedy) from None


def opened(raw: IO[bytes], encoding: str, where: str) -> TextIO:
    """A stream of bytes as one of text, read as `decode` reads a file: without a byte-order mark, and with
    bytes that do not fit as halves of surrogate pairs. Line ends stay as they are."""
    encoding = known(encoding)
    buffer = io.BufferedReader(raw)  # type: ignore[type-var] # of anything that has readinto
    codec = _codec(encoding, buffer.peek(2)[:2], where)
    return io.TextIOWrapper(buffer, encoding=codec, errors="surrogateescape", newline="")


def _codec(encoding: str, first: bytes, where: str) -> str:
    """What decodes a file that begins with these two bytes: UTF-16 where its mark says so, which no text in
    UTF-8 begins with."""
    if encoding != "utf-8":
        return encoding
    if first in UTF16:
        return "utf-16"
    if b"\0" in first:
        remedy = 'set data.encoding = "utf-16-le", or "utf-16-be"'
        raise InputError("the file is UTF-16 without a byte-order mark", where=where, remedy=remedy)
    return "utf-8-sig"
