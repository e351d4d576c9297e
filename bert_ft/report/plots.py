"""Charts with matplotlib: learning curves and scatter plots, as figures for notebooks and as inline SVG for
the page."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from html import escape
from itertools import count
from typing import TYPE_CHECKING, Any

from bert_ft import reading
from bert_ft.report.rendering import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


Line = tuple[Sequence[float], Sequence[float]]
Log = Sequence[Mapping[str, Any]]

INK = "#333a45"
GRID = "#dfe3e8"
SERIES = ("#2463c9", "#c2410c", "#0f7b55", "#8a3fb8", "#96700a", "#b3245f")
THEME = {INK: "currentColor", GRID: "var(--line)"} | {color: f"var(--c{i})" for i, color in enumerate(SERIES)}
"""What the page puts in the place of each colour, so that it can be light or dark."""

MARGINS = {"left": 0.16, "bottom": 0.2, "right": 0.97, "top": 0.82}
"""Of a learning curve, with room for a title above the power of ten of its axis. Layouts that measure what is
drawn take most of a short run's time."""

_unique = count()


def _style() -> AbstractContextManager[None]:
    import matplotlib

    plain = ("text.color", "axes.labelcolor", "xtick.color", "ytick.color", "axes.edgecolor")
    settings: dict[Any, Any] = dict.fromkeys(plain, INK) | {
        "svg.fonttype": "none",
        "svg.hashsalt": "bert-ft",
        "text.parse_math": False,
        "text.usetex": False,
        "font.size": 9,
        "axes.grid": True,
        "grid.color": GRID,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 10,
        "axes.titlelocation": "left",
        "legend.frameon": False,
        "legend.fontsize": 8,
        "axes.formatter.limits": (-3, 5),
        "figure.facecolor": "none",
        "axes.facecolor": "none",
    }
    return matplotlib.rc_context(settings)


HELD_OUT = "loss of held-out rows"
"""Title of the chart of a head that was fitted: by the penalties that cross-validation has tried."""


def curves(logs: Mapping[str, Log], best: tuple[str, str]) -> dict[str, dict[str, Line]]:
    """Title of a chart -> name -> points: loss, metric, learning rate and gradient norm by optimizer step.

    Args:
        logs: name -> lines of a run's log. best: the set and metric that pick the best step; where there is
            one log, its other sets have lines too.
    """
    result: dict[str, dict[str, Line]] = {}

    def add(title: str, name: str, points: list[tuple[float, float | None]]) -> None:
        if defined := [(x, y) for x, y in points if y is not None]:
            x, y = zip(*defined, strict=True)
            result.setdefault(title, {})[name] = (x, y)

    for run, log in logs.items():
        tried = [e["held_out"] for e in log if "held_out" in e and reading.fits(e["held_out"], [{"": 0.0}])]
        if tried:  # a head that was fitted has learned in no steps
            points = [(each.get("penalty"), each.get("loss")) for each in tried[-1]]
            add(HELD_OUT, run, sorted((x, y) for x, y in points if x is not None and y is not None))
            continue
        add("loss", run, [(e["step"], e["loss"]) for e in log if "loss" in e])
        evaluations = [e for e in log if "evaluation" in e]
        for name in dict.fromkeys(
            name for e in evaluations for name in e["evaluation"] if name == best[0] or len(logs) == 1
        ):
            values = [(e["step"], e["evaluation"].get(name, {}).get(best[1])) for e in evaluations]
            add(best[1], name if len(logs) == 1 else run, values)
        for key, title in (("learning_rate", "learning rate"), ("grad_norm", "gradient norm")):
            add(title, run, [(e["step"], e.get(key)) for e in log if "loss" in e])
    return result


def _draw(axes: Axes, title: str, lines: Mapping[str, Line]) -> None:
    from matplotlib.ticker import MaxNLocator, NullLocator

    for i, (name, (x, y)) in enumerate(lines.items()):
        color = SERIES[i % len(SERIES)]
        axes.plot(
            x,
            y,
            color=color,
            linewidth=1.5,
            label=name,
            marker="o" if len(x) < 20 else None,
            markersize=3,
            linestyle=("-", "--", ":")[i // len(SERIES) % 3],
        )
    axes.set_title(title)
    if title == HELD_OUT:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")  # powers would be formulas, which are not parsed
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("penalty on the weights")
    else:
        axes.set_xlabel("step")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    if len(lines) > 1:
        axes.legend()


def figure(log: Log, best: tuple[str, str]) -> Figure:
    """The learning curves in one figure, which shows itself in a notebook."""
    from matplotlib.figure import Figure

    class Shown(Figure):
        def _repr_svg_(self) -> str:
            return svg(self, "learning curves", theme={})

    panels = curves({"training": log}, best)
    with _style():
        fig = Shown(figsize=(9, 2.6 * max(1, (len(panels) + 1) // 2)), layout="constrained")
        for place, (title, lines) in enumerate(panels.items(), 1):
            _draw(fig.add_subplot((len(panels) + 1) // 2, 2, place), title, lines)
    return fig


def charts(logs: Mapping[str, Log], best: tuple[str, str]) -> list[str]:
    """The learning curves as SVG, a chart each."""
    from matplotlib.figure import Figure

    result = []
    for title, lines in curves(logs, best).items():
        with _style():
            fig = Figure(figsize=(4, 2.4))
            fig.subplots_adjust(**MARGINS)
            _draw(fig.add_subplot(), title, lines)
            unit = "penalty" if title == HELD_OUT else "step"
            descriptions = [
                f"{name} from {y[0]:.4g} at {unit} {x[0]:,} to {y[-1]:.4g} at {unit} {x[-1]:,}, lowest "
                f"{min(y):.4g}, "
                f"highest {max(y):.4g}"
                for name, (x, y) in lines.items()
            ]
            result.append(svg(fig, f"{title} by {unit}: " + "; ".join(descriptions)))
    return result


def scatter(x: Any, y: Any, names: tuple[str, str], description: str) -> str:
    """Points and the line on which both are equal, as SVG."""
    from matplotlib.figure import Figure

    with _style():
        fig = Figure(figsize=(4, 3.4), layout="constrained")
        axes = fig.add_subplot()
        axes.scatter(x, y, s=9, color=SERIES[0], alpha=0.45, linewidths=0)
        low, high = min(min(x), min(y)), max(max(x), max(y))
        axes.plot([low, high], [low, high], color=SERIES[1], linewidth=1)
        axes.set(xlabel=names[0], ylabel=names[1])
        return svg(fig, description)


def reliability(groups: Mapping[str, Line], description: str) -> str:
    """How often answers are right by how sure the model is of them, a line a group, and the line on which
    both are equal; as SVG."""
    from matplotlib.figure import Figure

    with _style():
        fig = Figure(figsize=(4, 3.4), layout="constrained")
        axes = fig.add_subplot()
        axes.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle=":")
        for color, (name, (x, y)) in zip(SERIES, groups.items(), strict=False):
            axes.plot(x, y, color=color, linewidth=1.2, marker="o", markersize=3.5, label=name)
        low = min([*(value for x, y in groups.values() for value in (*x, *y)), 0.9])
        axes.set(xlabel="probability of the answer", ylabel="share that is right", xlim=(low - 0.02, 1.02))
        axes.set_ylim(low - 0.02, 1.02)
        axes.legend(loc="upper left")
        return svg(fig, description)


def dots(
    rows: Sequence[tuple[str, Sequence[float], Sequence[float]]], names: tuple[str, str], unit: str
) -> str:
    """A line for each (name, values, marks): a dot a value, a diamond a mark; as SVG. `names`: of dots and
    diamonds."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    with _style():
        fig = Figure(figsize=(4, 0.9 + 0.36 * len(rows)), layout="constrained")
        axes = fig.add_subplot()
        for at, (_, values, marks) in enumerate(reversed(rows)):
            axes.scatter(
                values, [at] * len(values), s=26, color=SERIES[0], alpha=0.6, linewidths=0, label=names[0]
            )
            label = names[1] if len(marks) else None  # the legend names what is there
            axes.scatter(
                marks, [at] * len(marks), s=52, marker="D", color=SERIES[1], linewidths=0, label=label
            )
        axes.set_yticks(range(len(rows)), [name for name, _, _ in reversed(rows)])
        axes.set(xlabel=unit, ylim=(-0.6, len(rows) - 0.4))
        axes.xaxis.set_major_locator(MaxNLocator(nbins=4))
        handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
        axes.legend(handles.values(), handles.keys(), loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
        descriptions = [
            f"{name}: {names[0]} {', '.join(f'{v:.2f}' for v in values)}"
            + "".join(f"; {names[1]} {v:.2f}" for v in marks)
            for name, values, marks in rows
        ]
        return svg(fig, f"{unit}: " + ". ".join(descriptions))


def points(
    groups: Mapping[str, tuple[Sequence[Any], Sequence[float]]],
    names: tuple[str, str],
    description: str,
    *,
    log: bool = False,
    theme: Mapping[str, str] = THEME,
) -> str:
    """Groups of points, a colour each, as SVG. `log`: whether the first axis is logarithmic."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter

    with _style():
        fig = Figure(figsize=(4, 2.6), layout="constrained")
        axes = fig.add_subplot()
        for color, (name, (x, y)) in zip(SERIES, groups.items(), strict=False):
            axes.scatter(x, y, s=14, color=color, alpha=0.7, linewidths=0, label=name)
        axes.set(xlabel=names[0], ylabel=names[1])
        if log:
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter("{x:.0e}")
            axes.xaxis.set_minor_formatter(NullFormatter())
        if len(groups) > 1:
            axes.legend()
        return svg(fig, description, theme)


def scores_by_rows(
    runs: Sequence[tuple[int, float]],
    band: Sequence[Mapping[str, float]],
    name: str,
    description: str,
    *,
    furthest: float,
    theme: Mapping[str, str] = THEME,
) -> str:
    """Scores by rows of training, as SVG: a dot a run, a diamond a mean, the law and its band.

    Args:
        runs: (rows, score) of each. band: points of the law (rows, fit, low, high), the last of them at
            `furthest` times the most rows; empty where there is none. name: of the scores.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    with _style():
        fig = Figure(figsize=(6.4, 3.6), layout="constrained")
        axes = fig.add_subplot()
        sizes = sorted({rows for rows, _ in runs})
        means = [_mean([score for rows, score in runs if rows == size]) for size in sizes]
        ticks = list(sizes)
        if band:
            x = [point["rows"] for point in band]
            low, high = ([point[key] for point in band] for key in ("low", "high"))
            axes.fill_between(x, low, high, color=SERIES[0], alpha=0.15, linewidth=0, label="95 % band")
            inside = [point for point in band if point["rows"] <= sizes[-1] * (1 + 1e-9)]
            for part, style in ((inside, "-"), (band[len(inside) - 1 :], "--")):
                label = "law" if style == "-" else "drawn out"
                x, fit = ([point[key] for point in part] for key in ("rows", "fit"))
                axes.plot(x, fit, color=SERIES[0], linewidth=1.5, linestyle=style, label=label)
            ticks.append(round(furthest * sizes[-1]))
        places, scores = ([run[i] for run in runs] for i in (0, 1))
        axes.scatter(places, scores, s=16, color=SERIES[1], alpha=0.6, linewidths=0, label="run")
        axes.scatter(sizes, means, s=34, marker="D", color=SERIES[1], linewidths=0, label="mean")
        axes.set(xlabel="rows of training", ylabel=name, xscale="log")
        axes.xaxis.set_major_locator(FixedLocator(ticks))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda rows, _: f"{rows:,.0f}"))
        axes.legend(loc="best")
        return svg(fig, description, theme)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def svg(fig: Figure, description: str, theme: Mapping[str, str] = THEME) -> str:
    """A figure as SVG to stand inside HTML: real text, its text alternative, no id that another one has."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    stream = io.StringIO()
    with _style(), warnings.catch_warnings():  # `savefig` would draw it twice
        # a font has not all letters, and the reader's own draw them; it would quote them as they are
        warnings.filterwarnings("ignore", "Glyph ")
        canvas = FigureCanvasSVG(fig)
        canvas.print_svg(stream, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))  # type: ignore[no-untyped-call]
    text = stream.getvalue()
    size = re.search(r'viewBox="[\d. ]+"', text)
    body = text[text.index("</defs>") + len("</defs>") :]  # what stands before is a style for the whole page
    here = f"f{next(_unique)}-"
    used = set(re.findall(r'(?:url\(#|href="#)([\w.-]+)', body))
    body = re.sub(r' id="([^"]*)"', lambda m: f' id="{here}{m[1]}"' if m[1] in used else "", body)
    body = re.sub(r'(url\(#|href="#)', rf"\g<1>{here}", body)
    body = re.sub(r"font-family: [^;\"]*;? ?", "", body)
    body = re.sub("|".join(theme), lambda m: theme[m[0]], body) if theme else body
    font = "" if theme else 'font-family="sans-serif" '  # the page has its own
    body = visible(body)
    description = visible(description)
    return (
        f'<svg {size[0] if size else ""} xmlns="http://www.w3.org/2000/svg" '
        'xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'{font}role="img" aria-label="{escape(description)}">{body}'
    )
