"""A table is the same to training and to `predict`: the same cells, the same refusals, whatever it looks like."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bert_ft.config.task import Task
from bert_ft.data.formats import OTHERS, delimited
from bert_ft.errors import InputError
from bert_ft.tools.predict.readers import reading_rows

CELLS = ["", "a", "b c", " ", "NA", "01", "1e3", "naïve", "好看的电影", "不错，很好", '"', '""', 'a "b" c', '5" disk', '"a" b',
         "a,b", "a;b", "a\tb", "a\nb", "a\r\nb", "a\rb", "\n", "é\u2028b", "\x0b", "\x85", "\x00", "\ufeff", "'", "\\", '\\"', "=1", "😀"]  # fmt: skip
ENDS = ["\n", "\r\n", "\r"]
DELIMITERS = [",", "\t", ";", "|", "；", " "]
ENCODINGS = ["utf-8", "utf-8-sig", "gb18030", "utf-16", "utf-16-le", "latin-1"]
RAW = 'ab,;\t"""\n\n\r 好é'


def written(draw: random.Random, delimiter: str) -> str:
    """A table as a program writes it: quoted where needed, or at random; some rows uneven, some lines empty."""
    end, width = draw.choice(ENDS), draw.randint(1, 4)
    lines = [delimiter.join(f"{name}" for name in draw.sample(["text", "n", "名字", "x y"], width))]
    for _ in range(draw.randint(0, 6)):
        cells = []
        for _ in range(width + (draw.choice([-1, 1]) if draw.random() < 0.03 else 0)):
            cell = draw.choice(CELLS)
            special = any(c in cell for c in (delimiter, '"', "\n", "\r"))
            careless = draw.random() < 0.02  # as somebody writes it who knows of no quotes
            quoted = (special and not careless) or draw.random() < 0.2
            cells.append('"' + cell.replace('"', '""') + '"' if quoted else cell)
        lines.append(delimiter.join(cells))
        lines += [""] * (draw.random() < 0.1)
    return end.join(lines) + draw.choice(["", end, end + end])


def cases(number: int) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Files, and what a task says of them."""
    draw = random.Random(19)
    for i in range(number):
        delimiter = draw.choice(DELIMITERS)
        if i % 4:
            text = written(draw, delimiter)
        else:  # any characters, in any order
            text = draw.choice(
                ["text\n", "text,n\r\n", "text;n,x\r", "text\n\n", "", "\n", '"te"xt\n', '"text']
            )
            text += "".join(draw.choices(RAW, k=draw.randint(0, 25)))
        encoding = draw.choice(ENCODINGS)
        try:
            content = text.encode(encoding)
        except UnicodeEncodeError:
            encoding, content = "gb18030", text.encode("gb18030")
        form: dict[str, Any] = {
            "quoting": draw.random() < 0.8,
            "encoding": "utf-8" if encoding == "utf-8-sig" else encoding,
        }
        if delimiter != "," or draw.random() < 0.5:
            form["delimiter"] = delimiter
        yield content, form


def trained_on(file: Path, first: str, form: dict[str, Any]) -> dict[str, list[Any]] | str:
    """What training reads, or what it says."""
    try:
        columns: dict[str, list[Any]] = delimited.read(file, [first], optional=(OTHERS,), **form).to_pydict()
    except InputError as error:
        return str(error)
    return columns


def predicted_from(
    file: Path, first: str, form: dict[str, Any]
) -> tuple[dict[str, list[Any]] | str, list[str]]:
    """What `predict` reads, or what it says of the header; and what it says of rows."""
    task = Task.model_validate({"data": form})
    try:
        with reading_rows(str(file), "csv", [first], task) as stream:
            lines = list(stream)
    except InputError as error:
        return str(error), []
    rows = [row for _, row, _ in lines if row is not None]
    return {name: [row[name] for row in rows] for name in (rows[0] if rows else ())}, [
        fault for *_, fault in lines if fault
    ]


def test_training_and_predict_read_the_same_tables(tmp_path: Path) -> None:
    file, seen = tmp_path / "rows.csv", {"read": 0, "refused": 0, "row at fault": 0}
    for content, form in cases(3000):
        file.write_bytes(content)
        encoding = "utf-8-sig" if form["encoding"] == "utf-8" else form["encoding"]
        first = next(iter(content.decode(encoding).splitlines()), "").split(form.get("delimiter", ","))[0]
        trained = trained_on(file, first, form)
        streamed, faults = predicted_from(file, first, form)
        told = (content.decode(encoding), form, trained, streamed, faults)
        if isinstance(streamed, str):
            assert trained == streamed, told
            seen["refused"] += 1
        elif faults:
            assert isinstance(trained, str) and "no rows" not in trained, told
            seen["row at fault"] += 1
        elif not streamed:
            assert isinstance(trained, str) and "no rows below the header" in trained, told
        else:
            assert trained == streamed, told
            seen["read"] += 1
    assert min(seen.values()) > 50, seen
