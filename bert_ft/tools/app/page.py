"""The page: fields, a button, the answer; examples; a file of rows. What is shown of a model is HTML that
`answers` escapes; none of Gradio's own components shows a text that it could read as HTML."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from bert_ft.errors import InputError
from bert_ft.modeling.model import Model
from bert_ft.report import rendering
from bert_ft.tools.app import answers, files
from bert_ft.tools.app.answers import fragment
from bert_ft.tools.app.examples import Example, named
from bert_ft.tools.app.phrases import LANGUAGES, TAGS, phrase

try:
    import gradio as gr
except ImportError:
    raise InputError("Gradio is not installed", remedy="pip install 'bert-ft[app]'") from None

STYLE = Path(rendering.__file__).with_name("app") / "style.css"
LONG = ("context",)  # roles whose field is a large one
ONE_AT_A_TIME = {"concurrency_id": "model", "concurrency_limit": 1, "show_progress": "hidden"}
"""The model answers one request after the other."""
FONTS = ["system-ui", "Segoe UI", "Noto Sans", "Noto Sans CJK SC", "Microsoft YaHei", "sans-serif"]
MONO = ["ui-monospace", "Menlo", "Consolas", "monospace"]


class Subject(NamedTuple):
    """What the page is of.

    Attributes:
        name: where the model lies. title: of its task.
        unfinished: whether it is of a run that is not finished. notes: what else a person should know of it.
        of_set: the scored set that the examples are of.
    """

    model: Model
    name: str
    title: str
    unfinished: bool
    notes: Sequence[str]
    of_set: str
    examples: Sequence[Example]


def roles(model: Model) -> list[str]:
    """The roles that have a field: those that an input must have."""
    return [role for role, needed in model.adapter.inputs.items() if needed]


def labels(model: Model, language: str) -> dict[str, str]:
    """Role -> what its field is called."""
    named = {role: phrase(language, role) for role in roles(model)}
    return named | ({"text": phrase(language, "first")} if "text_pair" in named else {})


def build(subject: Subject, language: str) -> Any:
    """The page in one language, a `gradio.Blocks`."""
    say = partial(phrase, language)
    with gr.Blocks(title=f"{subject.name} · bert-ft", analytics_enabled=False) as blocks:
        gr.HTML(
            fragment(
                "head",
                language,
                languages=LANGUAGES,
                language=language,
                title=subject.title,
                model=subject.name,
                notes=[*([say("unfinished")] if subject.unfinished else []), *subject.notes],
            )
        )
        fields = [
            gr.Textbox(label=label, lines=6 if role in LONG else 3, max_lines=16, elem_id=f"field-{role}")
            for role, label in labels(subject.model, language).items()
        ]
        button = gr.Button(say("answer"), variant="primary", elem_id="answer")
        output = gr.HTML(elem_id="output")
        answering: dict[str, Any] = {
            "fn": partial(_answered, subject.model, language), "inputs": fields, "outputs": output,
            "api_visibility": "private", **ONE_AT_A_TIME,
        }  # fmt: skip
        button.click(**answering)
        for field in fields:
            field.submit(**answering)
        _examples(subject, language, fields, answering)
        _file(subject.model, language)
    return blocks


def _answered(model: Model, language: str, *texts: str) -> Iterator[str]:
    yield fragment("waiting", language)
    values = {role: text or "" for role, text in zip(roles(model), texts, strict=True)}
    yield answers.answer(model, values, language)


def _examples(subject: Subject, language: str, fields: Sequence[Any], answering: dict[str, Any]) -> None:
    """Rows to try; one that is chosen fills the fields, and is answered."""
    if not subject.examples:
        return
    title = phrase(language, "examples", set=phrase(language, subject.of_set))
    gr.HTML(fragment("heading", language, title=title, hint=""))
    for number, example in enumerate(subject.examples):
        name = named(example, language)
        chosen = gr.Button(name, size="sm", elem_classes="example", elem_id=f"example-{number}")
        filled = chosen.click(
            partial(_filled, example), None, list(fields), queue=False, show_progress="hidden",
            api_visibility="private",
        )  # fmt: skip
        filled.then(**answering)


def _filled(example: Example) -> Any:
    return example.values if len(example.values) > 1 else example.values[0]


def _file(model: Model, language: str) -> None:
    """A file of rows to upload, and its answers to download."""
    say = partial(phrase, language)
    hint = say("file_hint", columns=", ".join(files.columns(model)))
    gr.HTML(fragment("heading", language, title=say("file"), hint=hint))
    chosen = gr.UploadButton(say("upload"), type="filepath", elem_id="upload")
    outcome = gr.HTML(elem_id="outcome")
    download = gr.DownloadButton(say("download"), visible=False, elem_id="download")
    chosen.upload(
        partial(_file_answered, model, language), chosen, [outcome, download], api_visibility="private",
        **ONE_AT_A_TIME,
    )  # fmt: skip


def _file_answered(model: Model, language: str, source: str) -> Iterator[tuple[str, Any]]:
    hidden = gr.DownloadButton(visible=False)
    yield fragment("waiting", language), hidden
    told, target = files.answer(model, source, language)
    yield told, gr.DownloadButton(value=target, visible=True) if target else hidden


def mount(application: Any, subject: Subject, port: int) -> None:
    """Puts the page at /en and /zh of a FastAPI application: no links to elsewhere, no fonts but the
    machine's, nothing kept in the browser."""
    theme = gr.themes.Base(primary_hue="indigo", neutral_hue="slate", font=FONTS, font_mono=MONO)
    for language in LANGUAGES:
        gr.mount_gradio_app(
            application,
            build(subject, language),
            path=f"/{language}",
            server_name="127.0.0.1",
            server_port=port,
            theme=theme,
            css_paths=STYLE,
            js=f"() => {{ document.documentElement.lang = '{TAGS[language]}' }}",
            footer_links=[],
            run_history=False,
            show_error=False,
            ssr_mode=False,
            mcp_server=False,
            enable_monitoring=False,
            pwa=False,
        )
