"""What the page shows of a model's answers: HTML in which everything is text that came as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from bert_ft.errors import BertFtError
from bert_ft.families.base import Adapter
from bert_ft.modeling.model import Model
from bert_ft.report.rendering import render, show
from bert_ft.tools.app.phrases import TAGS, phrase

BARS = 12  # labels that have a bar
COLOURS = 8  # of entity types, in the style sheet
LOST = 0.05  # share of a text's characters that the vocabulary may lack before that is told


class Bar(NamedTuple):
    """A label with its probability."""

    label: str
    probability: float
    chosen: bool
    threshold: float | None


class Piece(NamedTuple):
    """A part of a text, marked where it has a label."""

    text: str
    label: str = ""
    share: str = ""
    colour: int = 0


def fragment(name: str, language: str, /, **values: Any) -> str:
    """A part of the page as HTML, everything in it escaped."""

    def say(key: str, /, **parts: object) -> str:
        return phrase(language, key, **parts)

    return render(f"app/{name}.html.j2", say=say, tag=TAGS[language], percent=percent, **values)


def percent(share: float) -> str:
    """A share in a hundred: "97.3 %"; never 100 % or 0 % of one that is neither."""
    if 0 < share < 0.001:
        return "< 0.1 %"
    if 0.999 < share < 1:
        return "> 99.9 %"
    return f"{share:.1%}".replace("%", " %")


def answer(model: Model, values: Mapping[str, str], language: str) -> str:
    """The answer to one input as HTML, or what is wrong with the input.

    Args:
        values: role -> text.
    """
    missing = [role for role, text in values.items() if not text.strip()]
    if missing:
        named = ", ".join(phrase(language, role) for role in missing)
        return fragment("fault", language, lines=[phrase(language, "missing", roles=named)])
    try:
        rows = model.adapter.rows([model.adapter.input(values)])
        blocks = list(model.blocks(rows))
        predictions = model.infer(rows, blocks)
        found = next(iter(model.adapter.decode_raw(predictions, rows)))
    except BertFtError as error:
        return fault(error, language)
    counts = blocks[0][1].counts
    return fragment(
        "answer",
        language,
        notes=notes(counts, model.max_length, language),
        **parts(model.adapter, found, values),
    )


def fault(error: BertFtError, language: str) -> str:
    """An error as HTML: its message alone, since a remedy speaks of the command line."""
    where = f"{error.where}: " if error.where and not error.where.startswith("input ") else ""
    return fragment("fault", language, lines=[where + error.message, *error.details])


def notes(counts: Mapping[str, int], length: int, language: str) -> list[str]:
    """What of the input the model did not read."""
    lines = []
    if counts.get("truncated"):
        question = "windows" in counts  # its text is read in these, and no part of it is cut
        lines.append(phrase(language, "long_question" if question else "truncated", length=length))
    lost = max(
        counts.get("unknown", 0) / max(1, counts.get("tokens", 0)),
        counts.get("uncovered", 0) / max(1, counts.get("characters", 0)),
    )
    if lost > LOST:
        lines.append(phrase(language, "unread", share=percent(lost)))
    return lines


def parts(adapter: Adapter, found: Mapping[str, Any], values: Mapping[str, str]) -> dict[str, Any]:
    """What the answer's template takes, from an answer as `decode_raw` makes it, whatever the family."""
    shown: dict[str, Any] = {"kind": "value", "value": show(found.get("prediction"))}
    if "probabilities" in found:
        bars = of_labels(found, adapter.tuned.get("thresholds", {}))
        shown = {"kind": "bars", "bars": bars[:BARS], "rest": bars[BARS:]}
        shown["chosen"] = [bar.label for bar in bars if bar.chosen]
    elif "entities" in found:
        pieces = of_entities(found["text"], found["entities"], kinds(adapter.names))
        shown = {"kind": "entities", "pieces": pieces, "some": bool(found["entities"])}
    elif "context" in values and "start" in found:
        shown = {
            "kind": "span",
            "value": found["prediction"],
            "pieces": of_span(values["context"], found["start"], found["end"]),
            "probability": found["score"],
            "odds": f"{found['null_odds']:.2f}" if "null_odds" in found else None,
            "threshold": f"{adapter.tuned.get('null_threshold', 0.0):.2f}",
        }
    return shown


def of_labels(found: Mapping[str, Any], thresholds: Mapping[str, float]) -> list[Bar]:
    """The labels of an answer, the likeliest first; each of several that can be chosen has its threshold."""
    prediction = found["prediction"]
    several = isinstance(prediction, list)
    chosen = set(map(str, prediction if several else [prediction]))
    bars = [
        Bar(name, share, name in chosen, thresholds.get(name, 0.5) if several else None)
        for name, share in found["probabilities"].items()
    ]
    return sorted(bars, key=lambda bar: (-bar.chosen, -bar.probability))


def kinds(names: Sequence[str]) -> list[str]:
    """The entity types of a head's tags, in a steady order: a type keeps its colour."""
    return sorted({name[2:] for name in names if name[1:2] == "-"})


def of_entities(text: str, entities: Sequence[Mapping[str, Any]], types: Sequence[str]) -> list[Piece]:
    """A text in pieces, its entities marked."""
    pieces = []
    at = 0
    for entity in sorted(entities, key=lambda entity: int(entity["start"])):
        start, end, label = int(entity["start"]), int(entity["end"]), str(entity["label"])
        if start < at:  # within the one before
            continue
        number = types.index(label) if label in types else len(types)
        pieces.append(Piece(text[at:start]))
        pieces.append(Piece(text[start:end], label, percent(float(entity["score"])), number % COLOURS))
        at = end
    return [piece for piece in [*pieces, Piece(text[at:])] if piece.text]


def of_span(context: str, start: int | None, end: int | None) -> list[Piece]:
    """A context in pieces, the answer marked where there is one."""
    if start is None or end is None or start < 0:
        return [Piece(context)]
    return [Piece(context[:start]), Piece(context[start:end], label="answer"), Piece(context[end:])]
