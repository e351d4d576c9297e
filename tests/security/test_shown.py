"""What reaches a terminal, a page, Markdown or a spreadsheet: nothing there obeys what stands in a file."""

from __future__ import annotations

import csv as csv_module
import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

import bert_ft
from bert_ft.display import Display
from bert_ft.errors import InputError, shown

CLEAR = "\x1b[2J\x1b]0;owned\x07"  # clears a terminal and renames its window
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
READABLE = ["正面评价", "👩‍👩‍👧 🏳️‍🌈 🇨🇳", "שלום עולם", "العربية", "می‌خواهم", "naïve café", "　全角　"]
LABELS = [f"good{CLEAR}", "bad\u202egnp.exe", "[red]plain[/red]", "正面"]
TEXTS = [f"a film of {word} number {i}" for i in range(12) for word in ("grace", "haste", "wit", "诗意")]


@pytest.fixture(scope="module")
def hostile(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> bert_ft.Run:
    """A run whose labels, title and set name were written by somebody who means harm."""
    rows = [{"text": text, "label": LABELS[i % 4]} for i, text in enumerate(TEXTS)]
    task = bert_ft.load_task("classification").model_copy(
        update={"title": f"title {CLEAR} | <b>x</b> \u202e"}
    )
    return bert_ft.finetune(task, str(tiny_checkpoint), train=rows, validation=rows[:8], epochs=1, batch_size=16,
                            max_length=16, output=tmp_path_factory.mktemp("hostile") / "run", quiet=True)  # fmt: skip


@pytest.mark.parametrize("text", READABLE)
def test_letters_and_emoji_stay_readable(text: str) -> None:
    assert shown(text) == text


@pytest.mark.parametrize("character", [*map(chr, range(0x20)), *map(chr, range(0x7F, 0xA0)), *"\u200b\u200e\u200f\u2028\u2029"
                         "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff\u061c\ud83d\udc80"])  # fmt: skip
def test_what_can_not_be_seen_is_an_escape(character: str) -> None:
    out = shown(f"a{character}b")
    assert character not in out and out.startswith("a\\") and out.endswith("b") and out.isascii()
    out.encode()


def test_a_long_value_keeps_its_beginning_and_its_end() -> None:
    out = shown("b" + "x" * 10**6 + "e", most=60)
    assert len(out) == 60 and out.startswith("bx") and out.endswith("xe") and "…" in out


def test_a_message_is_its_own_lines_alone() -> None:
    """What is quoted in a message can't add a line that looks like one of ours."""
    error = InputError(
        "no column 'a\nbert-ft: all is well'", where="f\r\nile.csv", remedy=f"known: {CLEAR}\n  do this"
    )
    assert len(str(error).splitlines()) == 2 and not OBEYED.search(str(error).replace("\n", ""))
    assert len(str(InputError("x" * 10**6))) < 3000


def test_progress_is_neither_markup_nor_orders(capsys: pytest.CaptureFixture[str]) -> None:
    Display().say(f"[bold]label[/bold] {CLEAR}\u202e正面\nsecond", "yellow")
    err = capsys.readouterr().err
    assert "[bold]label[/bold]" in err and "正面\\nsecond" in err
    assert not OBEYED.search(err.replace("\n", ""))


def commands(run: Path, folder: Path) -> list[tuple[str, ...]]:
    return [
        ("runs", str(run.parent)), ("runs", str(run.parent), "--json"), ("compare", str(run), str(folder), "--show-flips", "3"),
        ("evaluate", str(run)), ("report", str(run)), ("tasks", "show", str(run / "task.toml")), ("predict", str(run), "rows.csv"),
        ("predict", str(run), "rows.csv", "--to", "jsonl"), ("predict", str(run), f"no{CLEAR}.csv"),
        ("check", "classification", "--train", "rows.csv", "--validation", "rows.csv"),
        ("check", "classification", "--train", "rows.csv", "--validation", "rows.csv", "--json"),
        ("train", "classification", "-c", f"no/{CLEAR}", "--train", "rows.csv", "--validation", "10%"),
        ("tasks", "show", f"x{CLEAR}.toml"), ("train", str(run / "task.toml"), "--set", f"{CLEAR}=1"),
    ]  # fmt: skip


@pytest.mark.parametrize("number", range(14))
def test_no_command_prints_what_a_terminal_obeys(
    hostile: bert_ft.Run, cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    other = tmp_path / f"other{CLEAR.replace('/', '')}\u202e"
    shutil.copytree(hostile.path, other)
    rows = [
        ("text", "label", f"no{CLEAR}te"),
        *((f"{text} {CLEAR}\u202e", LABELS[i % 4], "x") for i, text in enumerate(TEXTS)),
    ]
    with (tmp_path / "rows.csv").open("w", newline="") as stream:
        csv_module.writer(stream).writerows(rows)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    done = cli(*commands(hostile.path, other)[number])
    everything = re.sub(r"\x1b\[[\d;]*m", "", done.out + done.err)  # our own colours
    assert everything.strip() and not OBEYED.search(everything.replace("\n", "")), repr(
        OBEYED.search(everything)
    )


def test_json_on_a_terminal_has_the_same_values(hostile: bert_ft.Run, cli: Any, csv: Any) -> None:
    rows = [(text, LABELS[i % 4]) for i, text in enumerate(TEXTS)]
    path = csv("rows.csv", [("text", "label"), *rows])
    done = cli("check", "classification", "--train", path, "--validation", path, "--json")
    assert set(json.loads(done.out)["sets"]["train"]["labels"]) == set(LABELS)
    done = cli("predict", str(hostile.path), path, "--to", "jsonl")
    assert {json.loads(line)["prediction"] for line in done.out.splitlines()} <= set(LABELS)


def test_a_page_shows_marks_of_direction_as_escapes(hostile: bert_ft.Run) -> None:
    page = (hostile.path / "report.html").read_text()
    assert "bad\\u202egnp.exe" in page and not OBEYED.search(page.replace("\n", "").replace("\t", ""))


def test_markdown_of_a_card_is_no_markup_and_no_html(hostile: bert_ft.Run) -> None:
    card = (hostile.path / "model" / "README.md").read_text()
    body = card.split("---\n", 2)[2]
    assert "title \\\\x1b" in body and "\\| &lt;b&gt;x&lt;/b&gt;" in body
    assert not OBEYED.search(card.replace("\n", ""))


def test_markdown_of_a_table_is_one_cell() -> None:
    from bert_ft.report.rendering import markdown

    cell = markdown("a | b\n| c <img src=x onerror=y> [link](javascript:1) `code` \u202e &lt;")
    assert (
        "\n" not in cell
        and "<" not in cell
        and not re.search(r"(?<!\\)[|`\[\]]", cell)
        and "\u202e" not in cell
    )
    assert markdown("正面 a-b 1.5") == "正面 a-b 1.5"


FORMULAS = [
    '=HYPERLINK("http://x")',
    "+1+cmd|' /C calc'!A0",
    "-2+3+cmd|' /C calc'!A0",
    "@SUM(1)",
    "\t=1",
    "＝1+1",
]


@pytest.mark.parametrize("kind", ["csv", "tsv"])
def test_formulas_are_plain_by_default_and_neutral_on_request(
    hostile: bert_ft.Run, cli: Any, tmp_path: Path, kind: str
) -> None:
    texts = [*FORMULAS, "-1.5", "plain", "+49 30 1"]
    file = tmp_path / "rows.csv"
    with file.open("w", newline="") as stream:
        csv_module.writer(stream).writerows([("text", "=note"), *((text, text) for text in texts)])

    def answers(*options: str) -> list[dict[str, str]]:
        done = cli("predict", str(hostile.path), file, "--to", kind, *options)
        assert done.code == 0
        return list(
            csv_module.DictReader(io.StringIO(done.out, newline=""), delimiter="," if kind == "csv" else "\t")
        )

    assert [row["text"] for row in answers()] == texts and "=note" in answers()[0]
    safe = answers("--escape-formulas")
    assert [row["text"] for row in safe] == [*(f"'{text}" for text in FORMULAS), "-1.5", "plain", "'+49 30 1"]
    assert [row["'=note"] for row in safe] == [row["text"] for row in safe]
    assert float(safe[0]["probability of 正面"]) > 0
    refused = cli("predict", str(hostile.path), file, "--to", "jsonl", "--escape-formulas")
    assert refused.code == 2 and "--escape-formulas" in refused.err


@pytest.mark.parametrize("kind", ["csv", "tsv"])
def test_a_carriage_return_ends_no_row(hostile: bert_ft.Run, cli: Any, tmp_path: Path, kind: str) -> None:
    """Within a cell: every reader of tables takes a bare one for the end of a row, which would begin with a formula."""
    texts = ["a warm\r=1+1", "\r", "a\r\nb", 'a"\rb', "a\nb", "plain"]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    assert cli("predict", str(hostile.path), "rows.jsonl", "-o", f"out.{kind}", "--escape-formulas").code == 0
    with (tmp_path / f"out.{kind}").open(newline="", encoding="utf-8-sig") as stream:
        rows = list(csv_module.DictReader(stream, delimiter="," if kind == "csv" else "\t"))
    assert [row["text"].removeprefix("'") for row in rows] == texts
    pandas = pytest.importorskip("pandas")
    read = pandas.read_csv(tmp_path / f"out.{kind}", sep="," if kind == "csv" else "\t")
    assert len(read) == len(texts)
    lines = (tmp_path / f"out.{kind}").read_bytes().split(b"\n")
    assert not any(line.endswith(b"\r") for line in lines[:1]), "rows end as they did"
