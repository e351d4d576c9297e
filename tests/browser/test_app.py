"""The page to try a model in, in a browser: typed, clicked, looked at, and nothing asked of anybody else.

Needs the extra `app`, playwright, and a Chromium (CHROMIUM names it; /usr/bin/chromium by default).
"""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import bert_ft

pytest.importorskip("gradio", reason="the extra `app`")
playwright = pytest.importorskip("playwright.sync_api")
expect = playwright.expect
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not Path(CHROMIUM).is_file(), reason="no Chromium")]

ARGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync"]  # fmt: skip
HOSTILE = '<img src=x onerror="alert(1)"><script>alert(2)</script> ${alert(3)} {{value}}'
FINAL = "#output .bert-ft:not(:has(.waiting))"
WAIT = 60_000  # milliseconds, on a machine that others use too
SERVER = """
import sys

def hook(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto", "socket.gethostbyname"):
        address = args[1] if event in ("socket.connect", "socket.sendto") else args
        print(repr(address), file=log, flush=True)

log = open(sys.argv.pop(1), "w")
sys.addaudithook(hook)
from bert_ft.cli import main

main(sys.argv[1:])
"""
"""The command, with every address that it reaches for written down."""

# --- models, and servers of them --------------------------------------------------------------------------------------

TEXTS = [f"a {'warm' if i % 2 else 'dull'} film with {HOSTILE}" for i in range(8)]
WORDS = ["a", "warm", "film", "in", "New", "York"]
TAGS = ["O", "O", "O", "O", "B-LOC", "I-LOC"]
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "label": ("classification", {"train": [
        {"text": text, "label": "good <b>" if i % 2 else "bad"} for i, text in enumerate(TEXTS)]}),
    "sets": ("classification", {"problem_type": "multi_label_classification", "train": [
        {"text": text, "label": ["joy", "awe"] if i % 2 else ["fear"]} for i, text in enumerate(TEXTS)]}),
    "number": ("classification", {"problem_type": "regression", "columns": {"text": "text", "text_pair": "text_pair", "label": "label"}, "train": [
        {"text": text, "text_pair": "a film", "label": float(i)} for i, text in enumerate(TEXTS)]}),
    "entities": ("ner", {"train": [{"tokens": WORDS, "tags": TAGS}] * 8, "learning_rate": 0.05}),
    "answers": ("qa", {"no_answer": True, "train": [
        {"id": str(i), "question": "what film?", "context": "a warm film", "answers": {"text": ["warm"], "answer_start": [2]}}
        for i in range(8)]}),
}  # fmt: skip


@pytest.fixture(scope="module")
def run_of(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def run_of(kind: str) -> Path:
        if kind not in made:
            family, given = KINDS[kind]
            folder = tmp_path_factory.mktemp("runs") / kind
            given = {"max_steps": 30 if kind == "entities" else 2} | given
            bert_ft.finetune(
                family, tiny_checkpoint, validation=given["train"], max_length=32, quiet=True, output=folder, **given
            )  # fmt: skip
            made[kind] = folder
        return made[kind]

    return run_of


@dataclass
class Served:
    """A server of a model, and what it reached for."""

    process: subprocess.Popen[str]
    address: str
    log: Path
    temporary: Path

    @property
    def port(self) -> int:
        return int(re.findall(r":(\d+)/", self.address)[0])

    @property
    def reached(self) -> list[str]:
        return self.log.read_text().splitlines()


@contextmanager
def serving(run: Path, folder: Path, *arguments: str) -> Iterator[Served]:
    folder.mkdir(exist_ok=True)
    environment = os.environ | {"PYTHONPATH": str(Path(bert_ft.__file__).parents[1]), "TMPDIR": str(folder)}
    command = [sys.executable, "-c", SERVER, str(folder / "reached.log"), "app", str(run), *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=folder)
    assert process.stdout is not None
    try:
        address = process.stdout.readline().strip()
        assert address.startswith("http://127.0.0.1:"), process.wait()
        yield Served(process, address, folder / "reached.log", folder)
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def served_of(run_of: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Served]]:
    from contextlib import ExitStack

    running: dict[str, Served] = {}
    with ExitStack() as stack:

        def served_of(kind: str) -> Served:
            if kind not in running:
                running[kind] = stack.enter_context(serving(run_of(kind), tmp_path_factory.mktemp(kind)))
            return running[kind]

        yield served_of


# --- a browser that keeps a record ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=ARGS)
        yield chromium
        chromium.close()


@dataclass
class Visit:
    """A page, what it asked for, and what went wrong in it."""

    page: Any
    urls: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def ask(self, **texts: str) -> Any:
        """Types, clicks, and returns the answer that appears."""
        for role, text in texts.items():
            self.page.fill(f"#field-{role} textarea", text)
        self.page.click("#answer")
        return self.answered()

    def answered(self) -> Any:
        self.page.wait_for_selector(FINAL, timeout=WAIT)
        return self.page.locator("#output")


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Visit]]:
    """Opens a page; at the end every request must have been to its own server, and no script have failed."""
    visits: list[tuple[Visit, Served]] = []

    def visit(served: Served, width: int = 1200, language: str = "en-US") -> Visit:
        context = browser.new_context(viewport={"width": width, "height": 900}, locale=language)
        found = Visit(context.new_page())
        context.on("request", lambda request: found.urls.append(request.url))
        found.page.on("pageerror", lambda error: found.faults.append(str(error)))
        found.page.on(
            "console", lambda line: found.faults.append(line.text) if line.type == "error" else None
        )
        found.page.on(
            "dialog", lambda dialog: (found.faults.append(f"dialog: {dialog.message}"), dialog.dismiss())
        )
        found.page.goto(served.address)
        found.page.wait_for_selector("#answer", timeout=WAIT)
        visits.append((found, served))
        return found

    yield visit
    for found, served in visits:
        found.page.wait_for_timeout(300)
        elsewhere = [url for url in found.urls if not url.startswith((served.address, "data:", "blob:"))]
        assert found.urls and not elsewhere, elsewhere
        assert not served.reached, served.reached
        assert not found.faults, found.faults
        found.page.context.close()


def fits(page: Any) -> bool:
    """Whether nothing is wider than the window."""
    return bool(page.evaluate("document.documentElement.scrollWidth <= innerWidth"))


# --- what is looked at ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [400, 1200])
def test_a_text_is_typed_and_its_labels_have_bars(
    served_of: Any, run_of: Any, visit: Any, width: int
) -> None:
    page = visit(served_of("label"), width)
    output = page.ask(text="a warm and funny film")
    answer = bert_ft.load(run_of("label")).predict("a warm and funny film")[0]
    expect(output.locator(".result")).to_have_text(answer["prediction"])
    assert output.locator(".label").all_inner_texts()[0] == answer["prediction"]
    track, bar = (output.locator(place).first.bounding_box()["width"] for place in (".track", ".bar"))
    assert bar / track == pytest.approx(max(answer["probabilities"].values()), abs=0.01)
    assert fits(page.page)


def test_an_answer_is_announced_while_it_is_made(served_of: Any, visit: Any) -> None:
    page = visit(served_of("label"))
    page.page.evaluate(
        """() => { window.seen = [];
        new MutationObserver(() => seen.push(document.querySelector('#output').innerText))
          .observe(document.querySelector('#output').parentElement, {childList: true, subtree: true, characterData: true}) }"""
    )
    page.ask(text="a warm film")
    assert any("The model is at work" in text for text in page.page.evaluate("seen"))


def test_the_keyboard_alone_is_enough(served_of: Any, visit: Any) -> None:
    page = visit(served_of("number"))
    keys = page.page.keyboard

    def tab_to(selector: str) -> None:
        for _ in range(8):
            keys.press("Tab")
            if page.page.evaluate("place => document.activeElement.matches(place)", selector):
                return
        raise AssertionError(f"no Tab reaches {selector}")

    tab_to("#field-text textarea")
    keys.type("a warm film")
    tab_to("#field-text_pair textarea")
    keys.type("a dull film")
    tab_to("#answer")
    keys.press("Enter")
    assert re.fullmatch(r"-?[\d.]+", page.answered().locator(".result").inner_text())
    tab_to(".example")
    keys.press("Enter")
    expect(page.page.locator("#field-text textarea")).not_to_have_value("a warm film")
    for _ in range(7):  # past the other examples
        keys.press("Tab")
        if page.page.evaluate("document.activeElement.id") == "upload":
            break
    assert page.page.evaluate("document.activeElement.id") == "upload"


def test_nothing_typed_and_nothing_in_the_data_is_run_as_html(served_of: Any, visit: Any) -> None:
    page = visit(served_of("entities"))
    output = page.ask(text=f"a film {HOSTILE}")
    words = output.locator(".text").evaluate(
        "place => { const copy = place.cloneNode(true); copy.querySelectorAll('.kind').forEach(kind => kind.remove()); return copy.textContent }"
    )
    assert words == f"a film {HOSTILE}"
    assert output.locator("img, script").count() == 0
    page = visit(served_of("label"))  # whose rows and labels hold HTML: its examples are buttons
    example = page.page.locator(".example").first
    assert "<img src=x" in example.inner_text() and example.locator("img").count() == 0
    example.click()
    page.answered()
    assert HOSTILE in page.page.input_value("#field-text textarea")
    assert "good <b>" in page.page.locator("#output .bars").inner_text()


@pytest.mark.parametrize("width", [400, 1200])
def test_each_of_several_labels_shows_its_threshold(served_of: Any, visit: Any, width: int) -> None:
    page = visit(served_of("sets"), width)
    output = page.ask(text="a warm film")
    assert output.locator("li").count() == output.locator(".limit").count() == 3
    assert "threshold" in output.inner_text() and fits(page.page)


@pytest.mark.parametrize("width", [400, 1200])
def test_entities_are_marked_with_their_types(served_of: Any, run_of: Any, visit: Any, width: int) -> None:
    text = "a warm film in New York"
    entities = bert_ft.load(run_of("entities")).predict(text)[0]["entities"]
    assert entities
    page = visit(served_of("entities"), width)
    marks = page.ask(text=text).locator("mark").all_inner_texts()
    expected = [f"{text[item['start'] : item['end']]} {item['label']}" for item in entities]
    assert [" ".join(mark.split()[:-2]) for mark in marks] == expected  # without "97.1 %"
    assert fits(page.page)


@pytest.mark.parametrize("width", [400, 1200])
def test_an_answer_stands_marked_in_its_text_or_the_odds_say_none(
    served_of: Any, visit: Any, width: int
) -> None:
    page = visit(served_of("answers"), width)
    output = page.ask(question="what film?", context="it was a warm film, and a long one")
    expect(output).to_contain_text("No-answer odds")
    assert output.locator("mark").count() == (0 if "has no answer" in output.inner_text() else 1)
    assert fits(page.page)


def test_a_field_left_empty_is_asked_for(served_of: Any, visit: Any) -> None:
    page = visit(served_of("answers"))
    output = page.ask(question="what film?")
    expect(output.get_by_role("alert")).to_have_text("Type something first: Text that has the answer")


def test_a_browser_in_chinese_gets_the_page_in_chinese(served_of: Any, visit: Any) -> None:
    page = visit(served_of("label"), language="zh-CN")
    assert page.page.url.endswith("/zh/")
    expect(page.page.locator("html")).to_have_attribute("lang", "zh-CN")
    expect(page.page.locator("#answer")).to_have_text("预测")
    output = page.ask(text="好看的电影 " * 40)
    expect(output).to_contain_text("超过模型能读的长度（32 个词元）")
    page.page.get_by_role("link", name="English").click()
    expect(page.page.locator("#answer")).to_have_text("Answer")


def test_a_file_goes_up_and_its_answers_come_down(
    served_of: Any, run_of: Any, visit: Any, tmp_path: Path
) -> None:
    rows = [{"text": "a warm film", "n": 1}, {"n": 2}, {"text": HOSTILE, "n": 3}]
    source = tmp_path / "reviews.jsonl"
    source.write_text("\n".join(map(json.dumps, rows)))
    page = visit(served_of("label"), 400)
    with page.page.expect_file_chooser() as chooser:
        page.page.click("#upload")
    chooser.value.set_files(source)
    outcome = page.page.locator("#outcome")
    expect(outcome).to_contain_text("Rows answered: 2", timeout=WAIT)
    expect(outcome).to_contain_text("Rows at fault, which are left out: 1 of 3")
    expect(outcome).to_contain_text("reviews.jsonl, line 2: no 'text'")
    with page.page.expect_download() as download:
        page.page.click("#download")
    assert download.value.suggested_filename == "reviews-answers.jsonl"
    answers = [json.loads(line) for line in Path(download.value.path()).read_text().splitlines()]
    expected = bert_ft.load(run_of("label")).predict([rows[0]["text"], HOSTILE])
    assert [(row["text"], row["n"], row["prediction"]) for row in answers] == [
        ("a warm film", 1, expected[0]["prediction"]), (HOSTILE, 3, expected[1]["prediction"]),
    ]  # fmt: skip
    assert fits(page.page)


# --- the server -------------------------------------------------------------------------------------------------------


def status(served: Served, path: str, method: str = "GET", **headers: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=30)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, headers=named)
    try:
        return connection.getresponse().status
    finally:
        connection.close()


def test_it_answers_itself_alone(served_of: Any) -> None:
    served = served_of("label")
    for path in ("/", "/en/", "/en/config", "/en/gradio_api/info", "/en/gradio_api/upload"):
        assert status(served, path, Host="evil.example") == 403
        assert status(served, path, "POST", Origin="http://evil.example") == 403
    assert status(served, "/en/") == 200
    for private in ("/etc/passwd", str(Path(bert_ft.__file__))):
        assert status(served, f"/en/gradio_api/file={private}") in (403, 404)
    for path in ("/docs", "/openapi.json", "/en/docs", "/en/monitoring"):
        assert status(served, path) in (403, 404, 405), path


@pytest.mark.parametrize("told", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_the_command_line_says_the_language_and_its_end_leaves_nothing_behind(
    run_of: Any, visit: Any, tmp_path: Path, told: str
) -> None:
    with serving(run_of("label"), tmp_path / "own", "--language", "zh") as served:
        page = visit(served)
        expect(page.page.locator("#answer")).to_have_text("预测")
        page.ask(text="a warm film")
        [uploads] = served.temporary.glob("bert-ft-app-*")
        assert uploads.stat().st_mode & 0o077 == 0
        begun = time.monotonic()
        served.process.send_signal(signal.Signals[told])  # while a page is open
        assert served.process.wait(30) == 0
        assert time.monotonic() - begun < 10
        assert {path.name for path in served.temporary.iterdir()} <= {"reached.log"}
        page.page.goto("about:blank")
        page.faults.clear()  # what the page says of a server that has gone


def test_a_run_that_is_not_finished_says_so(run_of: Any, tmp_path: Path, visit: Any) -> None:
    import shutil

    run = Path(shutil.copytree(run_of("label"), tmp_path / "run"))
    best = run / "checkpoints" / "best-2.safetensors"
    best.parent.mkdir(exist_ok=True)
    shutil.copy(run / "model" / "model.safetensors", best)
    (run / "results.json").unlink()
    with serving(run, tmp_path / "own") as served:
        page = visit(served)
        expect(page.page.locator(".head .note")).to_contain_text("This run is not finished")
        assert page.page.locator(".example").count() == 0
        page.ask(text="a warm film")
