"""The figures of docs/bert.md and the numbers it quotes, from the demo's checkpoint and film reviews (`make demo`).

    python docs/figures.py                  # all of it: ten short trainings, about five minutes on one core
    python docs/figures.py --no-training    # seconds; what the trainings gave stays as it is

Writes docs/figures/*.svg and docs/figures.md.
"""

from __future__ import annotations

import csv
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from transformers import AutoModel, AutoTokenizer

import bert_ft
from bert_ft.config.recipe import Recipe
from bert_ft.engine import optimization
from bert_ft.engine.batches import Plan
from bert_ft.families import tokenization

DOCS = Path(__file__).resolve().parent
CHECKPOINT = DOCS.parent / ".demo" / "all-MiniLM-L6-v2"
REVIEWS = DOCS.parent / ".demo" / "film-reviews"

INK, SERIES = "#7d858f", ("#3f80e0", "#e0703a", "#2b9a70", "#a66fd6")  # each stands out on white and on black
SHADES = LinearSegmentedColormap.from_list("shades", [(0.25, 0.5, 0.88, 0.0), (0.25, 0.5, 0.88, 1.0)])
PLATES = LinearSegmentedColormap.from_list("plates", ["#e9f1fd", "#6fa3f0"])  # under dark figures
GREY = ("text.color", "axes.labelcolor", "xtick.color", "ytick.color", "axes.edgecolor", "grid.color")
STYLE: dict[str, Any] = dict.fromkeys(GREY, INK) | {
    "svg.fonttype": "none", "svg.hashsalt": "bert-ft", "text.parse_math": False, "font.size": 9, "axes.titlesize": 9,
    "axes.titlelocation": "left", "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False,
    "grid.alpha": 0.3, "figure.facecolor": "none", "axes.facecolor": "none",
}  # fmt: skip

CHINESE = "这部电影很好看"  # "this film is well worth seeing"
SPLIT = ("Ponderous, plodding", "The casting of von Sydow")  # how two validation rows begin
ATTENDED = "It may be a prize winner"  # and a third
BANK = [
    "The river burst its bank after a week of rain.", "We sat on the grassy bank and watched the fish.",
    "The otter slid down the muddy bank into the stream.", "The bank refused to lend her the money.",
    "He opened a savings account at the bank.", "The bank raised its interest rates on loans.",
]  # fmt: skip
SENSES = ("river", "river", "river", "money", "money", "money")
TRIED = {2e-5: (0, 1), 1e-4: (0, 1, 2, 3), 5e-4: (0, 1), 2.5e-3: (0, 1)}  # learning rate -> seeds
STEPS, BATCH, SCORED = 50, 16, 400

Numbers = dict[str, tuple[str, str]]
"""What was found -> the value as the chapter quotes it, and its conditions."""


def reviews(split: str) -> list[dict[str, str]]:
    """The rows of a split of the demo's film reviews."""
    with (REVIEWS / f"{split}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def starting(text: str) -> str:
    """The validation review that starts so."""
    return next(row["text"] for row in reviews("validation") if row["text"].startswith(text))


def save(name: str, size: tuple[float, float], draw: Callable[[Figure], None]) -> None:
    """Draws docs/figures/<name>.svg."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure)
        figure.savefig(
            DOCS / "figures" / f"{name}.svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"))
        )


def wordpieces(tokenizer: Any) -> Numbers:
    """Two reviews and a Chinese sentence in the demo's English vocabulary."""
    texts = [*map(starting, SPLIT), CHINESE]
    lines = [tokenizer.tokenize(text) for text in texts]

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot(xlim=(0, 92), ylim=(-2.9, 0.9))
        axes.set_axis_off()
        for y, pieces in enumerate(lines):
            x = 0.5
            for piece in pieces:
                shown = piece if piece.isascii() else f"U+{ord(piece):04X}"
                color = SERIES[1] if piece == "[UNK]" else SERIES[0] if piece.startswith("##") else INK
                axes.text(x, -1.25 * y, shown, color=color, family="monospace", fontsize=8,
                          bbox={"boxstyle": "round,pad=0.25", "facecolor": "none", "edgecolor": color, "linewidth": 0.7})  # fmt: skip
                x += len(shown) + 1.2

    save("wordpieces", (7.2, 1.3), draw)
    rows = [row["text"] for split in ("train", "validation", "test") for row in reviews(split)]
    offsets, _, counts = tokenization.encode(tokenizer, rows, None, 512)
    words, pieces = sum(len(row.split()) for row in rows), counts["tokens"] - 2 * len(rows)
    where = f"all {len(rows):,} film reviews, the checkpoint's own tokenizer"
    return {
        "wordpieces a word": (f"{pieces / words:.2f}", f"{where}; words are what spaces part, so marks count as pieces"),
        "unknown wordpieces": (f"{counts['unknown']}", f"{where}, {pieces:,} wordpieces"),
        "longest review": (f"{np.diff(offsets).max()}", f"{where}; wordpieces, [CLS] and [SEP] included"),
        "Chinese characters that become [UNK]": (f"{lines[-1].count('[UNK]')} of {len(CHINESE)}", CHINESE),
    }  # fmt: skip


@torch.no_grad()
def bank(tokenizer: Any, model: Any) -> Numbers:
    """Cosines between the vectors of the word "bank" in six sentences."""
    inputs = tokenizer(BANK, padding="longest", return_tensors="pt")
    at = inputs["input_ids"] == tokenizer.convert_tokens_to_ids("bank")
    vectors = torch.nn.functional.normalize(model(**inputs).last_hidden_state[at], dim=-1)
    shown = np.asarray(vectors @ vectors.T)

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.imshow(shown, cmap=PLATES, vmin=0.5, vmax=1)
        axes.set_xticks(range(6), SENSES, fontsize=8, rotation=40, ha="right")
        axes.set_yticks(range(6), BANK, fontsize=8)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        for (i, j), value in np.ndenumerate(shown):
            axes.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=8, color="#1b2430")

    save("bank", (7.2, 2.9), draw)
    same = np.array(SENSES)[:, None] == np.array(SENSES)
    where = "mean cosine of pairs, six sentences of our own, last layer of all-MiniLM-L6-v2"
    return {
        '"bank", same sense': (f"{shown[same & ~np.eye(6, dtype=bool)].mean():.2f}", where),
        '"bank", other sense': (f"{shown[~same].mean():.2f}", where),
    }  # fmt: skip


@torch.no_grad()
def attention(tokenizer: Any, model: Any) -> Numbers:
    """Two heads on a real review: that which looks most at the token before, and most from "it" to "teacher"."""
    text = starting(ATTENDED)
    inputs = tokenizer(text, return_tensors="pt")
    tokens = tokenizer.convert_ids_to_tokens(inputs["input_ids"][0])
    maps = torch.stack(model(**inputs, output_attentions=True).attentions)[:, 0]  # (layers, heads, L, L)
    before = maps.diagonal(-1, 2, 3).mean(-1)
    subject = maps[:, :, tokens.index("it"), tokens.index("teacher")]
    chosen = [divmod(int(weight.argmax()), maps.shape[1]) for weight in (before, subject)]

    def draw(figure: Figure) -> None:
        for place, (layer, head) in enumerate(chosen, 1):
            axes = figure.add_subplot(1, 2, place)
            axes.imshow(maps[layer, head], cmap=SHADES, vmin=0, vmax=1)
            axes.set_xticks(range(len(tokens)), tokens, rotation=90, fontsize=7)
            axes.set_yticks(range(len(tokens)), tokens, fontsize=7)
            axes.tick_params(length=0)
            axes.set_title(f"layer {layer + 1}, head {head + 1}")

    save("attention", (7.2, 3.6), draw)
    heads = f"best of {maps[:, :, 0, 0].numel()} heads of all-MiniLM-L6-v2, chosen for it; {text!r}"
    (a, b), (c, d) = chosen
    return {
        "attention to the token before": (f"{before.max():.2f}", f"layer {a + 1}, head {b + 1}, mean; {heads}"),
        'attention from "it" to "teacher"': (f"{subject.max():.2f}", f"layer {c + 1}, head {d + 1}; {heads}"),
    }  # fmt: skip


def schedules() -> None:
    """The learning rate by step, and what Adam's bias correction does to the first steps."""
    steps, lines = 300, {}
    for name in ("linear", "cosine", "constant"):
        recipe = Recipe(learning_rate=3e-5, warmup_ratio=0.1, schedule=name)
        optimizer = optimization.optimizer(torch.nn.Linear(1, 1), recipe)
        schedule = optimization.schedule(optimizer, recipe, steps)
        lines[name] = [
            (schedule.get_last_lr()[0] * 1e5, optimizer.step(), schedule.step())[0] for _ in range(steps)
        ]
    t = np.arange(1, steps + 1)
    raw = (1 - 0.9**t) / np.sqrt(1 - 0.999**t)

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2)
        for (name, rates), color in zip(lines.items(), SERIES, strict=False):
            left.plot(rates, color=color, label=name)
        left.set(title="learning rate, in 1e-5: warmup 10 %", xlabel="step")
        right.plot(t, raw, color=SERIES[1], label="without bias correction")
        right.axhline(1, color=SERIES[0], label="with")
        right.set(
            title="Adam's step for a constant gradient, in learning rates", xlabel="step", ylim=(0, None)
        )
        for axes in (left, right):
            axes.legend(labelcolor=INK)
            axes.grid()

    save("schedule", (7.2, 2.4), draw)


def padding(tokenizer: Any) -> Numbers:
    """The tokens of a batch, and the padding of batches by their size."""
    texts = [row["text"] for row in reviews("train")]
    lengths = np.diff(tokenization.encode(tokenizer, texts, None, 128)[0])

    def share(size: int, grouped: bool = False) -> float:
        plan = Plan(len(texts), size, 1.0, 42, None, lengths if grouped else None)
        batches = [lengths[rows] for _, rows in plan.batches()]
        return 1 - lengths.sum() / sum(len(batch) * batch.max() for batch in batches)

    first = np.sort(lengths[next(Plan(len(texts), 32, 1.0, 42).batches())[1]])

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2)
        left.bar(range(32), first, color=SERIES[0], width=0.8, label="tokens")
        left.bar(
            range(32), first.max() - first, bottom=first, color=INK, alpha=0.25, width=0.8, label="padding"
        )
        left.set(title="a batch of 32 reviews, sorted for the eye", ylabel="positions", xticks=[])
        for grouped, name, color in (
            (False, "random batches", SERIES[0]),
            (True, "grouped by length", SERIES[2]),
        ):
            sizes = (4, 8, 16, 32, 64)
            right.plot(
                sizes,
                [100 * share(size, grouped) for size in sizes],
                "o-",
                markersize=3,
                color=color,
                label=name,
            )
        right.set(
            title="% of positions that are padding, by batch size", xlabel="rows a batch", ylim=(0, None)
        )
        right.set_xscale("log", base=2, subs=[])
        right.set_xticks(sizes, map(str, sizes))
        right.grid()
        left.legend(labelcolor=INK, loc="upper center", bbox_to_anchor=(0.5, 0), ncols=2)
        right.legend(labelcolor=INK)

    save("padding", (7.2, 2.6), draw)
    where = f"{len(texts):,} training reviews in random batches of 32, seed 42"
    return {
        "mean length": (f"{lengths.mean():.1f}", f"{where}; tokens, [CLS] and [SEP] included"),
        "padding in the batch drawn": (f"{100 * (1 - first.mean() / first.max()):.0f} %", f"{where}; the first batch"),
        "padding over an epoch": (f"{100 * share(32):.0f} %", f"{where}; padded to each batch's longest row"),
        "padding to 128": (f"{100 * (1 - lengths.mean() / 128):.0f} %", f"{where}; every row padded to max_length = 128"),
        "padding when grouped by length": (f"{100 * share(32, grouped=True):.0f} %", f"{where}, but of near length"),
    }  # fmt: skip


def trainings() -> Numbers:
    """Short trainings by learning rate and seed: losses, and accuracies."""
    sets = {split: {key: [row[key] for row in reviews(split)] for key in ("text", "label")}
            for split in ("train", "validation")}  # fmt: skip
    sets["validation"] = {key: column[:SCORED] for key, column in sets["validation"].items()}
    losses: dict[tuple[float, int], list[tuple[int, float]]] = {}
    accuracy: dict[tuple[float, int], float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for rate, seed in ((rate, seed) for rate, seeds in TRIED.items() for seed in seeds):
            run = bert_ft.finetune("classification", str(CHECKPOINT), output=f"{folder}/{rate}-{seed}", seed=seed, **sets,
                                   learning_rate=rate, batch_size=BATCH, max_steps=STEPS, warmup_ratio=0.1, log_every=5,
                                   weight_decay=0.01, save_model=False, check=False, quiet=True)  # fmt: skip
            losses[rate, seed] = [(line["step"], line["loss"]) for line in run.log if "loss" in line]
            accuracy[rate, seed] = run.metrics["validation"]["accuracy"]
    shown = dict(zip(TRIED, SERIES, strict=True))

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2)
        for (rate, seed), points in losses.items():
            if seed < 2:
                label = None if seed else f"{rate:g}"
                left.plot(*zip(*points, strict=True), color=shown[rate], linewidth=1.2, label=label)
        left.set(title="training loss by step, two seeds each", xlabel="step")
        left.legend(labelcolor=INK)
        for (rate, _), value in accuracy.items():
            right.plot(rate, 100 * value, "o", color=shown[rate], markersize=5, alpha=0.8)
        right.set_xscale("log", subs=[])
        right.set_xticks(list(TRIED), [f"{rate:g}" for rate in TRIED])
        right.minorticks_off()
        right.set(title="validation accuracy in %, a dot a seed", xlabel="learning rate")
        for axes in (left, right):
            axes.grid()

    save("learning_rates", (7.2, 2.8), draw)
    where = f"{STEPS} steps of {BATCH} reviews, warmup 10 %, fp32, one core; in % of the first {SCORED} validation reviews"
    return {f"accuracy at {rate:g}": (", ".join(f"{100 * accuracy[rate, seed]:g}" for seed in seeds),
                                      f"seeds {', '.join(map(str, seeds))}; {where}")
            for rate, seeds in TRIED.items()}  # fmt: skip


def table(found: Numbers) -> str:
    """docs/figures.md."""
    return "\n".join([
        "# The numbers in [BERT in principle and practice](bert.md)", "",
        "Written by `docs/figures.py` together with the figures, from the demo's checkpoint and film reviews.", "",
        "| what | value | conditions |", "|---|---|---|",
        *(f"| {name} | {value} | {conditions} |" for name, (value, conditions) in found.items()), "",
    ])  # fmt: skip


def committed() -> Numbers:
    """The rows of docs/figures.md."""
    rows = [line.strip("| ").split(" | ") for line in (DOCS / "figures.md").read_text(encoding="utf-8").splitlines()
            if line.startswith("| ")]  # fmt: skip
    return {name: (value, conditions) for name, value, conditions in rows[1:]}


def measured() -> Numbers:
    """All but the trainings."""
    tokenizer = AutoTokenizer.from_pretrained(CHECKPOINT)
    model = AutoModel.from_pretrained(CHECKPOINT, attn_implementation="eager").eval()
    weights = torch.cat(
        [w.flatten() for n, w in model.named_parameters() if n.startswith("encoder") and w.dim() == 2]
    )
    spread = {
        "standard deviation of a weight": (
            f"{weights.std():.3f}",
            "the matrices of all-MiniLM-L6-v2's six layers",
        )
    }
    schedules()
    return {**wordpieces(tokenizer), **bank(tokenizer, model), **attention(tokenizer, model), **spread,
            **padding(tokenizer)}  # fmt: skip


if __name__ == "__main__":
    known = committed() if "--no-training" in sys.argv else trainings()
    numbers = measured() | {name: row for name, row in known.items() if name.startswith("accuracy at")}
    (DOCS / "figures.md").write_text(table(numbers), encoding="utf-8")
