"""What a run shows of itself, from its folder alone: one HTML page, its charts, its model card."""

from __future__ import annotations

import math
import re
from functools import cache
from html import escape
from pathlib import PurePath
from typing import Any

from bert_ft.errors import UNSEEN, escaped, shown

INVISIBLE = re.compile(rf"(?![\t\n\r]){UNSEEN.pattern}")


def visible(value: Any) -> Any:
    """A text or a path as a page shows it: what can't be seen as its escape; white space is the browser's.
    Another value as it is."""
    value = str(value) if isinstance(value, PurePath) else value
    return INVISIBLE.sub(lambda match: escaped(match[0]), value) if type(value) is str else value


def render(name: str, **values: Any) -> str:
    """The HTML of a template of this folder with its values, everything escaped, also what can't be seen."""
    return str(_environment().get_template(name).render(values))


@cache
def _environment() -> Any:
    """Where templates come from; it keeps them compiled."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("bert_ft", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=visible,
    )
    environment.filters |= {"show": show, "md": lambda value: Markup(markdown(value))}
    environment.tests["numeric"] = lambda value: (
        isinstance(value, (int, float)) and not isinstance(value, bool)
    )
    return environment


def show(value: Any) -> str:
    """A value in words: 4 digits of a fraction, a dash for what is missing or undefined."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, dict):
        value = [f"{key} = {show(item)}" for key, item in value.items()]
    if isinstance(value, (list, tuple)):
        return ", ".join(map(show, value))
    if isinstance(value, (str, bool)) or not isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if 0 < abs(value) < 1e-3:
        return f"{value:.2e}"
    return f"{value:,.4f}" if abs(value) < 10 else f"{value:,.2f}"


def markdown(value: Any) -> str:
    """Text in one line that Markdown and the HTML in it leave as it is, also as a cell of a table."""
    text = escape(shown(" ".join(str(value).split()), most=500), quote=False)
    return re.sub(r"([\\`*_\[\]|#~$!])", r"\\\1", text)
