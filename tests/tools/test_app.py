"""The page to try a model in, without a browser: what it shows of answers, whom it answers, its messages."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import bert_ft
from bert_ft.errors import InputError
from bert_ft.families.words import joined
from bert_ft.tools.app import answers, examples, files, phrases, server
from bert_ft.tools.app.guard import Guard

HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script>"
ROWS = [
    {"text": f"a {'warm' if i % 2 else 'dull'} film {HOSTILE}", "label": "good" if i % 2 else "bad"}
    for i in range(8)
]


@pytest.fixture(scope="module")
def run(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return bert_ft.finetune(
        "classification", tiny_checkpoint, train=ROWS, validation=ROWS, max_steps=1, max_length=16,
        quiet=True, output=tmp_path_factory.mktemp("app") / "run",
    )  # fmt: skip


def text_of(html: str) -> str:
    """What a browser shows of it."""
    from html import unescape

    return " ".join(unescape(re.sub(r"<[^>]*>", " ", html)).split())


def adapter(tuned: dict[str, Any] | None = None, names: list[str] | None = None) -> Any:
    return SimpleNamespace(tuned=tuned or {}, names=names or [])


def shown(
    found: dict[str, Any], language: str = "en", values: dict[str, str] | None = None, **bound: Any
) -> str:
    """The HTML of an answer."""
    return answers.fragment(
        "answer", language, notes=[], **answers.parts(adapter(**bound), found, values or {"text": "a text"})
    )


# --- answers ----------------------------------------------------------------------------------------------------------


def test_a_label_has_a_bar_as_long_as_its_probability_and_the_chosen_one_comes_first() -> None:
    html = shown({"prediction": "b", "probabilities": {"a": 0.25, "b": 0.75}})
    assert re.findall(r'class="label">(\w)<', html) == ["b", "a"]
    assert re.findall(r"width: ([\d.]+)%", html) == ["75.00", "25.00"]
    assert "threshold" not in html and 'class="limit"' not in html


def test_each_of_several_labels_is_held_against_its_own_threshold() -> None:
    found = {"prediction": ["joy"], "probabilities": {"anger": 0.4, "joy": 0.3, "fear": 0.1}}
    html = shown(found, tuned={"thresholds": {"joy": 0.2, "anger": 0.45}})
    assert re.findall(r"left: ([\d.]+)%", html) == ["20.00", "45.00", "50.00"]
    assert "joy chosen · threshold 20.0 % 30.0 %" in text_of(html) and text_of(html).startswith("joy")
    none = shown({"prediction": [], "probabilities": {"joy": 0.1}})
    assert "No label is above its threshold." in none


def test_of_many_labels_the_rest_is_counted() -> None:
    names = [f"label {i}" for i in range(30)]
    html = shown({"prediction": "label 0", "probabilities": dict.fromkeys(names, 1 / 30)})
    assert html.count("<li") == answers.BARS and f"and {30 - answers.BARS} labels of 3.3 % or less" in html


@pytest.mark.parametrize(("share", "said"), [(0.5, "50.0 %"), (0.9996, "> 99.9 %"), (0.0004, "< 0.1 %"), (1.0, "100.0 %"), (0.0, "0.0 %")])  # fmt: skip
def test_no_probability_is_rounded_to_a_certainty(share: float, said: str) -> None:
    assert answers.percent(share) == said


def test_entities_are_marked_where_they_stand_in_one_colour_a_type() -> None:
    text = f"Ada  met Bo in 北京。{HOSTILE}"
    entities = [
        {"start": 0, "end": 3, "label": "PER", "score": 0.9},
        {"start": 9, "end": 11, "label": "PER", "score": 0.8},
        {"start": 15, "end": 17, "label": "LOC", "score": 0.7},
    ]
    html = shown({"text": text, "entities": entities}, names=["O", "B-PER", "I-PER", "B-LOC"])
    marked = re.findall(r'<mark class="colour(\d)">(.*?)<span class="kind"> (\w+) ', html)
    assert marked == [("1", "Ada", "PER"), ("1", "Bo", "PER"), ("0", "北京", "LOC")]
    pieces = answers.of_entities(text, entities, ["LOC", "PER"])
    assert "".join(piece.text for piece in pieces) == text
    assert "No entities" in shown({"text": "nothing", "entities": []})


def test_an_answer_is_marked_in_its_context_with_the_odds_of_none() -> None:
    context = "It rose 3 % in May, 3 % more than in April."
    found = {"prediction": "3 %", "start": 8, "end": 11, "score": 0.62, "null_odds": -1.234}
    values = {"question": "?", "context": context}
    html = shown(found, values=values, tuned={"null_threshold": 0.5})
    assert "It rose <mark" in html and html.count("<mark") == 1
    assert "No-answer odds -1.23: above 0.50" in html and "probability 62.0 %" in text_of(html)
    none = shown({**found, "prediction": "", "start": None, "end": None}, values=values)
    assert "The text has no answer" in none and "<mark" not in none and context in none
    answered = shown({k: v for k, v in found.items() if k != "null_odds"}, values=values)
    assert "odds" not in answered


def test_a_number_is_a_number() -> None:
    assert text_of(shown({"prediction": 3.14159})) == "The predicted number 3.1416"


def test_whatever_is_shown_is_text(run: Any) -> None:
    found = {"prediction": HOSTILE, "probabilities": {HOSTILE: 1.0}}
    entity = [{"start": 0, "end": 4, "label": HOSTILE, "score": 0.5}]
    span = {"prediction": HOSTILE, "start": 0, "end": 9, "score": 0.5}
    pages = [
        shown(found),
        shown({"text": HOSTILE, "entities": entity}),
        shown(span, values={"question": "?", "context": HOSTILE}),
        answers.fragment("fault", "en", lines=[HOSTILE]),
        answers.fragment("outcome", "en", rows=2, bad=[HOSTILE], remarks=[HOSTILE]),
        answers.fragment("head", "en", languages={"en": "English"}, language="en", model=HOSTILE, title=HOSTILE, notes=[HOSTILE]),
        answers.fragment("heading", "en", title=HOSTILE, hint=HOSTILE),
        answers.answer(run.model, {"text": HOSTILE}, "en"),
    ]  # fmt: skip
    for html in pages:
        assert not re.search(r"<(img|script)", html), html
    assert all(HOSTILE[:27] in text_of(html) for html in pages[:-1])


# --- inputs -----------------------------------------------------------------------------------------------------------


def test_an_input_is_answered_as_predict_answers_it(run: Any) -> None:
    found = run.predict("a warm film")[0]
    html = answers.answer(run.model, {"text": "a warm film"}, "en")
    assert text_of(html).startswith(found["prediction"])
    assert answers.percent(max(found["probabilities"].values())) in html


def test_what_the_model_did_not_read_is_said(run: Any) -> None:
    html = answers.answer(run.model, {"text": "a warm film " * 20}, "en")
    assert "longer than the model reads (16 tokens)" in html
    assert "超过模型能读的长度（16 个词元）" in answers.answer(run.model, {"text": "a warm film " * 20}, "zh")
    assert 'class="note"' not in answers.answer(run.model, {"text": "a warm film"}, "en")
    assert "vocabulary lacks" in answers.answer(run.model, {"text": "好看的电影"}, "en")


@pytest.mark.parametrize("language", phrases.LANGUAGES)
def test_an_empty_field_is_asked_for(run: Any, language: str) -> None:
    html = answers.answer(run.model, {"text": " \n"}, language)
    assert 'role="alert"' in html and phrases.phrase(language, "text") in html


def test_an_input_at_fault_is_one_message_without_the_command_lines_remedy(run: Any) -> None:
    def rows(_: Any) -> Any:
        raise InputError("too strange", where="input 1", remedy="--set strange=true")

    model = SimpleNamespace(adapter=SimpleNamespace(input=lambda values: values, rows=rows))
    assert text_of(answers.answer(model, {"text": "x"}, "en")) == "too strange"


# --- examples ---------------------------------------------------------------------------------------------------------


def test_examples_are_errors_of_the_validation_set(run: Any) -> None:
    of_set, some = examples.of_run(run, ["text"])
    assert of_set == "validation" and len(some) == 4  # one label is predicted for all
    assert {example.values[0] for example in some} < {row["text"] for row in ROWS}
    name = examples.named(some[0], "en")
    assert re.search(r"… · label: \w+ · predicted: \w+$", name)
    assert re.search(r"… · 标注：\w+ · 预测：\w+$", examples.named(some[0], "zh"))


def test_a_run_that_can_list_no_errors_has_no_examples(run: Any) -> None:
    broken = SimpleNamespace(scored=lambda: (_ for _ in ()).throw(InputError("unfinished")))
    assert examples.of_run(broken, ["text"]) == ("", [])
    assert examples.of_run(run, ["text", "text_pair"])[1] == []


def test_words_become_a_text_as_their_script_writes_it() -> None:
    assert (
        joined(["我", "在", "北京", "，", "of", "the", "BBC", "工", "作", "。"])
        == "我在北京， of the BBC 工作。"
    )
    assert joined(["Ada", "met", "Bo", "."]) == "Ada met Bo ."


# --- files ------------------------------------------------------------------------------------------------------------


def test_a_file_is_answered_and_its_rows_at_fault_are_one_message(run: Any, tmp_path: Path) -> None:
    source = tmp_path / "reviews.jsonl"
    lines = [{"text": "a warm film"}, {"review": "?"}, {"text": 3}, {"text": "dull"}]
    source.write_text("\n".join(map(json.dumps, lines)))
    html, target = files.answer(run.model, str(source), "en")
    assert target == str(tmp_path / "reviews-answers.jsonl")
    written = [json.loads(line) for line in Path(target).read_text().splitlines()]
    assert [row["text"] for row in written] == ["a warm film", "dull"]
    assert written[0]["prediction"] == run.predict("a warm film")[0]["prediction"]
    said = text_of(html)
    assert said.startswith(
        "Rows answered: 2 Rows at fault, which are left out: 2 of 4 reviews.jsonl, line 2: no 'text'"
    )
    assert str(tmp_path) not in said


def test_a_file_that_cant_be_read_is_one_message_under_its_own_name(run: Any, tmp_path: Path) -> None:
    source = tmp_path / "reviews.csv"
    source.write_text("review,stars\na warm film,5\n")
    html, target = files.answer(run.model, str(source), "en")
    assert target is None and "reviews.csv" in html and "text" in html and str(tmp_path) not in html
    source = tmp_path / "reviews.docx"
    source.write_text("x")
    html, target = files.answer(run.model, str(source), "en")
    assert target is None and "unknown format" in html


def test_every_format_answers_in_one_that_holds_answers(run: Any, tmp_path: Path) -> None:
    for name, content in {"a.csv": "text\nwarm\n", "a.tsv": "text\nwarm\n", "a.txt": "warm\n"}.items():
        (tmp_path / name).write_text(content)
        _, target = files.answer(run.model, str(tmp_path / name), "en")
        assert target and Path(target).suffix == {".txt": ".jsonl"}.get(Path(name).suffix, Path(name).suffix)
        assert "warm" in Path(target).read_text()


# --- languages --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("header", "language"), [
    ("", "en"), ("zh-CN,zh;q=0.9,en;q=0.8", "zh"), ("en-US,en;q=0.9,zh;q=0.8", "en"), ("fr-FR, zh-TW;q=0.5", "zh"),
    ("en;q=0.2,zh;q=0.7", "zh"), ("de", "en"), ("zh;q=0,en;q=0.1", "en"), (";;q=,,", "en"),
])  # fmt: skip
def test_the_browsers_language_is_chosen(header: str, language: str) -> None:
    assert phrases.preferred(header) == language


def test_every_phrase_has_the_same_gaps_in_each_language() -> None:
    for name, texts in phrases.PHRASES.items():
        gaps = [sorted(re.findall(r"\{\w+\}", text)) for text in texts]
        assert len(texts) == len(phrases.LANGUAGES) and gaps[0] == gaps[1], name
        assert re.search("[\u4e00-\u9fff]", texts[1]), name
    assert phrases.phrase("zh", "a role of one's own") == "a role of one's own"


# --- whom the server answers ------------------------------------------------------------------------------------------


def asked(method: str = "GET", kind: str = "http", **headers: str) -> tuple[int, dict[str, str]]:
    """(status, headers) of a request to a guarded page at port 7860."""
    sent: list[dict[str, Any]] = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        await send(
            {"type": "http.response.start", "status": 200, "headers": [(b"X-Frame-Options", b"ALLOW")]}
        )

    async def send(message: Any) -> None:
        sent.append(message)

    named = {name.replace("_", "-"): value for name, value in headers.items()}
    pairs = [(name.encode(), value.encode()) for name, value in named.items()]
    scope = {"type": kind, "method": method, "headers": pairs}
    asyncio.run(Guard(inner, 7860)(scope, None, send))  # type: ignore[arg-type]
    first = sent[0]
    return first.get("status", first.get("code")), {
        name.decode().lower(): value.decode() for name, value in first.get("headers", [])
    }


HERE = "127.0.0.1:7860"


@pytest.mark.parametrize("headers", [
    {"host": HERE}, {"host": "localhost:7860"}, {"host": "LocalHost:7860", "origin": "http://localhost:7860"},
    {"host": HERE, "origin": f"http://{HERE}", "sec_fetch_site": "same-origin"},
    {"host": HERE, "sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate"},  # a link to the page
])  # fmt: skip
def test_the_page_itself_is_answered(headers: dict[str, str]) -> None:
    status, sent = asked(**headers)
    assert status == 200
    assert "default-src 'self'" in sent["content-security-policy"] and sent["x-frame-options"] == "DENY"
    assert "http" not in sent["content-security-policy"]


@pytest.mark.parametrize("headers", [
    {}, {"host": "evil.example:7860"}, {"host": "127.0.0.1"}, {"host": "127.0.0.1:80"}, {"host": "[::1]:7860"},
    {"host": HERE, "origin": "http://evil.example"}, {"host": HERE, "origin": "null"},
    {"host": HERE, "origin": "http://127.0.0.1:8000"}, {"host": HERE, "origin": f"https://{HERE}"},
    {"host": HERE, "origin": "http://localhost:7860"},
    {"host": HERE, "sec_fetch_site": "cross-site", "sec_fetch_mode": "no-cors"},
    {"host": HERE, "sec_fetch_site": "same-site", "sec_fetch_mode": "cors"},
])  # fmt: skip
def test_other_names_and_other_pages_are_refused(headers: dict[str, str]) -> None:
    assert asked(**headers)[0] == 403


def test_a_form_of_another_page_is_refused_and_so_is_a_web_socket() -> None:
    other = {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate"}
    assert asked("POST", host=HERE, **other)[0] == 403
    assert asked(kind="websocket", host=HERE)[0] == 1008


def test_a_port_that_is_taken_is_one_message() -> None:
    with server.listen(0) as one:
        port = one.getsockname()[1]
        assert one.getsockname()[0] == "127.0.0.1"
        with pytest.raises(InputError, match=f"port {port} is taken\n.*leave --port out"):
            server.listen(port)


# --- the command ------------------------------------------------------------------------------------------------------


def test_without_gradio_one_message_says_what_to_install(
    run: Any, cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "bert_ft.tools.app.page", raising=False)
    left = cli("app", str(run.path))
    assert left.code == 2
    assert left.err == "bert-ft: Gradio is not installed\n  pip install 'bert-ft[app]'\n"


def test_a_language_the_page_does_not_speak(cli: Any) -> None:
    left = cli("app", "runs/none", "--language", "fr")
    assert left.code == 2 and left.err.startswith("bert-ft: --language: the page does not speak 'fr'\n")
