"""Options that set keys of a task: made from the schema's descriptions, so that a key is described once."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import wraps
from types import NoneType
from typing import Annotated, Any, get_args, get_origin

import typer
from typer.core import TyperCommand

from bert_ft.cli.options import settings_of
from bert_ft.errors import InputError

OBJECTS = ("adapter", "loss", "metrics", "callbacks", "model", "tokenizer")
"""Arguments of `finetune` that are objects of Python."""


@dataclass(frozen=True)
class Setting:
    """An option that sets one key of the task."""

    key: str
    """As `finetune` takes it."""
    names: tuple[str, ...]
    help: str
    type: Any = str
    default: str | None = None
    """What is shown as the default; the option itself has none, so that what a file says holds."""
    value: Any = None
    """What a flag sets the key to, where this is not the flag's own true or false."""
    metavar: str | None = None

    @property
    def parameter(self) -> inspect.Parameter:
        """The option as a parameter of a command's function."""
        option = typer.Option(
            *self.names, help=self.help, metavar=self.metavar, show_default=self.default or True
        )
        name = self.names[0].partition("/")[0].lstrip("-").replace("-", "_")
        return inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[self.type | None, option]
        )


SET = Setting("", ("--set",), "Any key of the task, as in TOML.", list[str], metavar="KEY=VALUE")
OWN_DATA = (
    Setting("data.columns.text", ("--text",), "Column of the text."),
    Setting("data.columns.text_pair", ("--text-pair",), "Column of the second text of a pair."),
    Setting("data.columns.label", ("--label",), "Column of the label."),
    Setting(
        "data.columns.tokens", ("--tokens",), "ner: column of the words (a number in a file of columns)."
    ),
    Setting(
        "data.columns.tags", ("--tags",), "ner: column of the tags; in a file of columns -1 is the last."
    ),
    Setting(
        "data.problem_type", ("--regression",), "The label is a number to predict.", bool, value="regression"
    ),
    Setting(
        "data.problem_type",
        ("--multi-label",),
        "A row has a set of labels; --set label_delimiter=, splits a cell.",
        bool,
        value="multi_label_classification",
    ),
)
"""Where the columns of one's own data lie, and what its labels are."""

NAMES = {"recipe.learning_rate": ("--learning-rate", "--lr"), "execution.resume": ("--resume",)}
"""The options whose names do not follow from their keys."""
NO_OPTION = {"execution.signals"}
"""A command always obeys SIGINT and SIGTERM."""


def settings_command(
    app: typer.Typer, *settings: str | Setting | tuple[Setting, ...], name: str | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Adds a function to the app as a command whose parameter `settings` takes what options say: key -> value
    of each that was given.

    A setting is a key of the schema ("recipe.epochs"), a table of it whose every key becomes an option
    ("execution"), or an option that is described here. The schema is read when the command is called or asked
    for its help: that takes longer than all of `bert-ft --help` may.
    """

    def add(function: Callable[..., None]) -> Callable[..., None]:
        class Command(TyperCommand):
            whole: Any = None

            def get_params(self, ctx: Any) -> list[Any]:
                if self.whole is None:
                    maker = typer.Typer(add_completion=False, rich_markup_mode=None)
                    maker.command()(_with_options(function, list(_expanded(settings))))
                    self.whole = typer.main.get_command(maker)
                    self.params = self.whole.params
                    self.callback = self.whole.callback
                return super().get_params(ctx)

        def unmade() -> None:
            raise AssertionError("the command is made in full before it is called")

        unmade.__doc__ = function.__doc__
        app.command(name or function.__name__, cls=Command)(unmade)
        return function

    return add


def _expanded(settings: tuple[str | Setting | tuple[Setting, ...], ...]) -> Iterator[Setting]:
    from bert_ft.config.task import TABLES

    for setting in settings:
        if isinstance(setting, tuple):
            yield from setting
        elif isinstance(setting, Setting):
            yield setting
        elif "." in setting:
            yield _of_schema(setting)
        else:
            keys = [f"{setting}.{name}" for name in TABLES[setting].model_fields]
            yield from (_of_schema(key) for key in keys if key not in NO_OPTION)


def _of_schema(key: str) -> Setting:
    """The option of a key, with the schema's type, description and default. Of the recipe and the data no
    default is shown, since a task brings its own."""
    from bert_ft.config.task import TABLES

    table, _, name = key.partition(".")
    field = TABLES[table].model_fields[name]
    flag = "--" + name.replace("_", "-")
    kind = _type(field.annotation)
    pair = f"{flag}/--no-{flag.removeprefix('--')}"
    default = None
    if table == "execution" and field.default:
        default = flag.removeprefix("--") if kind is bool else str(field.default)
    description = field.description or ""
    return Setting(
        name if table in ("run", "execution") else key,  # as finetune's own keywords are called
        NAMES.get(key) or ((pair,) if kind is bool else (flag,)),
        description[:1].upper() + description[1:] + ".",
        kind,
        default,
    )


def _type(annotation: Any) -> Any:
    """bool, int or float where a key takes that alone; a text otherwise."""
    if get_origin(annotation) is Annotated:
        return _type(get_args(annotation)[0])
    kinds = [_type(part) for part in get_args(annotation) if part is not NoneType]
    if not kinds:
        return annotation if annotation in (bool, int, float) else str
    return kinds[0] if len(kinds) == 1 else str


def _refuse_arguments(values: Iterable[str], parameters: Iterable[str]) -> None:
    """Raises InputError: a key that no task has, and that the function behind a command of these parameters
    would take for an argument of its own."""
    from bert_ft.config.task import dotted_keys

    keys = {key.rpartition(".")[2] for key in dotted_keys()}
    for name in values:
        if name not in keys and (name in OBJECTS or name in parameters):
            remedy = f"--set takes keys of a task{'' if name in OBJECTS else f'; see --{name} in --help'}"
            raise InputError(f"'{name}' is no key of a task", where="--set", remedy=remedy)


def _with_options(function: Callable[..., None], settings: list[Setting]) -> Callable[..., None]:
    """The function with an option a setting in the place of its parameter `settings`."""
    signature = inspect.signature(function, eval_str=True)
    options = {setting.parameter.name: setting for setting in settings}
    parameters: list[inspect.Parameter] = []
    for parameter in signature.parameters.values():
        if parameter.name == "settings":
            parameters += [setting.parameter for setting in settings]
        else:
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))

    @wraps(function)
    def call(**arguments: Any) -> None:
        given = {name: arguments.pop(name) for name in options}
        values = settings_of(given.pop("set", None))
        _refuse_arguments(values, signature.parameters)
        for name, value in given.items():
            if value is not None:
                setting = options[name]
                values[setting.key] = value if setting.value is None else setting.value
        function(settings=values, **arguments)

    call.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return call
