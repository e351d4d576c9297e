"""A table is the same to training and to `predict`: the same cells, the same refusals, whatever it looks like."""

from __future__ import annotations

import csv
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bert_ft import errors
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
        columns: dict[str, list[Any]] = delimited.read(
            file, [first], optional=(OTHERS,), **form
        ).table.to_pydict()
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


WELL_QUOTED = re.compile(r'"((?:[^"]|"")*)"')
OPENINGS = ['"', '"" ', "", "", "", "(", '"Tis ', "« "]
CLOSINGS = ['"', '" said', "", "", "", '".', '""']


def test_lines_of_texts_joined_by_tabs_are_as_many_rows(tmp_path: Path) -> None:
    """What nobody quoted: a line is a row whatever quotes are in it, and each text is what stands there, unless
    it is quoted itself. The count of lines is that of the file, not of a reader."""
    draw = random.Random(20)
    literal = 0
    for _ in range(2000):
        lines = [
            [
                f"{draw.choice(OPENINGS)}{draw.choice(['a film', '好 片', 'x, y', ''])}{draw.choice(CLOSINGS)}",
                draw.choice("ab"),
            ]
            for _ in range(draw.randint(1, 12))
        ]
        file = tmp_path / "rows.tsv"
        file.write_text("".join("\t".join(line) + "\n" for line in [["text", "label"], *lines]))
        read = delimited.read(file, ["text", "label"])
        expected = [
            WELL_QUOTED.sub(lambda match: match[1].replace('""', '"'), text)
            if WELL_QUOTED.fullmatch(text)
            else text or None
            for text, _ in lines
        ]
        assert read.table["text"].to_pylist() == expected, file.read_text()
        assert read.table["label"].to_pylist() == [label for _, label in lines]
        opens = [text.startswith('"') and not WELL_QUOTED.fullmatch(text) for text, _ in lines]
        literal += sum(opens)
        if any(opens):
            assert f"line {opens.index(True) + 2}" in read.notes[0], read.notes
        assert len(read.notes) == any(opens) and not read.findings
    assert literal > 2000


def test_a_quoted_cell_of_several_lines_stays_one(tmp_path: Path) -> None:
    """As programs write it, also where each of its lines has as many cells as a row: no label stands there."""
    texts = ["Dear Sir, a film\nBye, me", 'two\nlines, "one" cell', "x, y\nz"] * 20
    for name in ("a.csv", "a.tsv"):
        with (tmp_path / name).open("w", newline="") as stream:
            writer = csv.writer(stream, delimiter="," if name == "a.csv" else "\t", quoting=csv.QUOTE_ALL)
            writer.writerows([["label", "text"], *(["ab"[i % 2], text] for i, text in enumerate(texts))])
        read = delimited.read(tmp_path / name, ["text", "label"])
        assert read.table["text"].to_pylist() == texts and not read.notes and not read.findings


SWALLOWED = [
    "good film,a",
    '"bad start,b',
    "x y z,a",
    "q r s,b",
    'he said so",a',
    *["fine end,b", "more,a"] * 3,
]


@pytest.mark.parametrize("ragged", ["", "ragged", "one, more,a"])
def test_a_quote_left_open_in_a_csv_is_told(tmp_path: Path, ragged: str) -> None:
    """Two readings are possible there; with tabs between the cells there is one. A ragged line hides nothing."""
    lines = [*SWALLOWED[:3], *filter(None, [ragged]), *SWALLOWED[3:]]
    (tmp_path / "a.csv").write_text("\n".join(["text,label", *lines, ""]))
    found = delimited.read(tmp_path / "a.csv", ["text"]).findings
    assert [finding.places for finding in found] == [[f"{tmp_path / 'a.csv'}, line 3"]]
    (tmp_path / "a.tsv").write_text(
        "\n".join(["text\tlabel", *(line.replace(",", "\t") for line in lines), ""])
    )
    if ragged:
        with pytest.raises(InputError, match=r"line 5: \d cells where the header has 2"):
            delimited.read(tmp_path / "a.tsv", ["text"])
    else:
        assert delimited.read(tmp_path / "a.tsv", ["text"]).table.num_rows == len(lines)
    strict = delimited.read(tmp_path / "a.csv", ["text"], quoting="strict")
    assert strict.table.num_rows == len(lines) - 3 - bool(ragged) and not strict.findings


def test_rows_behind_an_open_quote_are_no_part_of_its_fault(tmp_path: Path) -> None:
    """Each of the rows between is read, and the ragged line is the one that is named."""
    good = [f"film {i},{'ab'[i % 2]}" for i in range(6)]
    (tmp_path / "a.csv").write_text(
        "\n".join(["text,label", '"Tis a start,a', "ragged", *good, '"Twas,b', ""])
    )
    with errors.collecting() as faults:
        read = delimited.read(tmp_path / "a.csv", ["text"])
    assert read.table.num_rows == 8 and [error.where[-6:] for error in faults.errors] == ["line 3"]


@pytest.mark.parametrize("first", ["1", "0", "2"])
def test_a_number_in_the_first_row_is_no_header(tmp_path: Path, first: str) -> None:
    (tmp_path / "a.csv").write_text(f"{first},a film\n2,another\n")
    for wanted in (["1"], ["1", "0"]):
        assert delimited.read(tmp_path / "a.csv", wanted).table["1"].to_pylist() == ["a film", "another"]
    (tmp_path / "b.csv").write_text("id,0,1\n7,a,b\n")  # pandas' names of columns without one
    assert delimited.read(tmp_path / "b.csv", ["0"]).table["0"].to_pylist() == ["a"]


@pytest.mark.parametrize("delimiter", [";", "\t", "|", "，"])
def test_another_delimiter_is_named(tmp_path: Path, delimiter: str) -> None:
    (tmp_path / "a.csv").write_text(f"text{delimiter}label\nx{delimiter}y\n")
    with pytest.raises(InputError, match="parted by another character: --set"):
        delimited.read(tmp_path / "a.csv", ["text", "label"])


def test_quotes_escaped_by_backslashes(tmp_path: Path) -> None:
    cells = ['he said "good"', "C:\\", '"', 'a\\"b', "two\nlines", "好,片", r"a\nb", ""]
    with (tmp_path / "a.csv").open("w", newline="") as stream:
        writer = csv.writer(stream, doublequote=False, escapechar="\\", quoting=csv.QUOTE_ALL)
        writer.writerows([["text", "label"], *([cell, "a"] for cell in cells)])
    with (tmp_path / "a.csv").open(newline="") as stream:  # an independent reader of that form
        expected = [row[0] for row in csv.reader(stream, doublequote=False, escapechar="\\")][1:]
    assert expected == cells
    read = delimited.read(tmp_path / "a.csv", ["text"], quoting="backslash")
    assert read.table["text"].to_pylist() == cells
    with pytest.raises(InputError, match="--set quoting=backslash"):
        delimited.read(tmp_path / "a.csv", ["text"])


@pytest.mark.parametrize(("names", "wanted"), [(None, ["1", "0"]), (["label", "text"], ["text", "label"])])
def test_a_file_without_a_header_line(tmp_path: Path, names: list[str] | None, wanted: list[str]) -> None:
    (tmp_path / "a.csv").write_text('ham,"Go until, say, five"\nspam,"Win now\n')
    read = delimited.read(tmp_path / "a.csv", wanted, names=names)
    assert read.table[wanted[0]].to_pylist() == ["Go until, say, five", '"Win now']
    assert read.table[wanted[1]].to_pylist() == ["ham", "spam"]
    assert ("first line is a row and no header" in read.notes[0]) == (names is None)
    (tmp_path / "b.csv").write_text("ham,Go until jurong point crazy\nspam,Win a prize now in this\n")
    with pytest.raises(InputError, match=r"no column 'text'\n.*--text 1 --label 0"):
        delimited.read(tmp_path / "b.csv", ["text", "label"])


@pytest.mark.parametrize("long", [False, True])
@pytest.mark.parametrize("delimiter", [",", "，"])
def test_a_file_of_several_blocks_is_read_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, long: bool, delimiter: str
) -> None:
    """Cells with line breaks and a cell that is longer than a block, against Python's own reader; a ragged row of a
    later block has its number, and is skipped alone."""
    monkeypatch.setattr(delimited, "BLOCK", 1 << 20)
    rows = [[f"第 {i} 行\n{'一些文字 ' * 12}", str(i % 2)] for i in range(20_000)]
    if long:
        rows[15_000][0] = "长" * 700_000  # 2.1 MB
    lines = [f'"{text}"{delimiter}{label}\n' for text, label in rows]
    path = tmp_path / "rows.csv"
    path.write_text(f"text{delimiter}label\n" + "".join(lines))
    assert path.stat().st_size > 3 * delimited.BLOCK
    found = delimited.read(path, ["text", "label"], delimiter=delimiter).table
    assert found.to_pydict() == {"text": [text for text, _ in rows], "label": [label for _, label in rows]}

    lines[17_000] = f"a{delimiter}b{delimiter}c\n"
    path.write_text(f"text{delimiter}label\n" + "".join(lines))
    with pytest.raises(InputError, match="3 cells") as fault:
        delimited.read(path, ["text"], delimiter=delimiter)
    skipped: list[int] = []
    rest = delimited.read(path, ["text"], delimiter=delimiter, skipped=skipped).table
    assert rest["text"].to_pylist() == [text for i, (text, _) in enumerate(rows) if i != 17_000]
    number = int(re.search(r"row (\d+)", str(fault.value.where))[1])  # type: ignore[index]
    assert skipped == [number] == [17_001]


def test_a_large_file_is_not_held_several_times(tmp_path: Path) -> None:
    """Four copies and the parser's own were nine times the file."""
    import subprocess
    import sys

    path = tmp_path / "rows.csv"
    path.write_text("text,label\n" + "".join(f"a warm and funny film {i},good\n" for i in range(1_500_000)))
    code = (
        "import sys, resource; from pathlib import Path; from bert_ft.data.formats import delimited as d;"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024; before = peak();"
        "rows = d.read(Path(sys.argv[1]), ['text', 'label']).table.num_rows;"
        "print(rows, (peak() - before) / Path(sys.argv[1]).stat().st_size)"
    )
    ran = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    rows, times = ran.stdout.split()
    assert rows == "1500000"
    assert float(times) < 3.6
