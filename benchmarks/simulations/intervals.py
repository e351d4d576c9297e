"""Intervals of a score where the truth is known: shares, rare classes, label sets, numbers, rows that hang together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from cells import Rate, Simulated

from bert_ft.metrics import scoring
from bert_ft.metrics.bootstrap import Groups, Interval, Resamples, percentiles

TITLE = "Intervals of a score"
COLUMNS = ("rows", "what", "metric", "truth", "no interval", "coverage", "coverage of plain percentiles")
BEFORE = 200  # draws of the plain bootstrap, which is not the product's any more

Draw = Callable[[np.random.Generator], tuple[np.ndarray, Groups | None]]
"""The keys of one set, and its groups."""


def simulate(scale: float) -> list[Simulated]:
    return [
        shares(scale),
        classes(scale),
        label_sets(scale),
        numbers(scale),
        documents(scale),
        articles(scale),
    ]


def cell(
    names: Sequence[str], rows: str, what: str, truth: dict[str, float], draw: Draw, scored: scoring.Scoring, sets: int,
    low: float | None = 93, high: float | None = 97,
) -> Iterable[list[object]]:  # fmt: skip
    """A table's rows of one condition, a metric each."""
    rng = np.random.default_rng(len(what) + 31 * len(rows))
    covered: dict[str, list[bool]] = {name: [] for name in names}
    before: dict[str, list[bool]] = {name: [] for name in names}
    for _ in range(sets):
        keys, groups = draw(rng)
        resamples = Resamples(keys, scored, groups)
        found = resamples.intervals(seed=int(rng.integers(2**31)))
        plain = percentiles_of_rows(resamples, rng)
        for name in names:
            interval = found[name]
            if isinstance(interval, Interval):
                covered[name].append(interval.low - 1e-9 <= truth[name] <= interval.high + 1e-9)
            before[name].append(plain[name][0] - 1e-9 <= truth[name] <= plain[name][1] + 1e-9)
    for name in names:
        given = len(covered[name])
        rate = Rate(100 * np.mean(covered[name]) if given >= 0.2 * sets else np.nan, max(given, 1), low, high)
        declined = f"{100 * (1 - given / sets):.0f} %"
        yield [
            rows,
            what,
            name,
            f"{truth[name]:.3f}",
            declined,
            rate,
            Rate(100 * np.mean(before[name]), sets),
        ]


def percentiles_of_rows(resamples: Resamples, rng: np.random.Generator) -> dict[str, tuple[float, float]]:
    """The percentile bootstrap of single rows, whatever hangs together: what earlier versions showed."""
    counts = np.bincount(resamples.kind, minlength=resamples.size)
    n = int(counts.sum())
    with np.errstate(all="ignore"):
        drawn = resamples.score(rng.multinomial(n, counts / n, BEFORE))
        return {name: percentiles(values) for name, values in drawn.items() if not np.isnan(values).all()}


def shares(scale: float) -> Simulated:
    """Accuracy, from .5 to .99."""
    table = Simulated(
        "Shares of rows",
        "Accuracy of n independent rows. The exact interval never covers less than 95 %; with few rows it covers more, "
        "since counts go in steps: there is no upper bound here.",
        COLUMNS,
    )
    for n in (50, 200, 1000):
        for p in (0.5, 0.9, 0.99):

            def draw(rng: np.random.Generator, n: int = n, p: float = p) -> tuple[np.ndarray, None]:
                return (rng.random((n, 1)) < p).astype(float), None

            scored = scoring.Means(["accuracy"])
            sets = int(1000 * scale)
            table.rows += cell(
                ["accuracy"], str(n), f"accuracy {p}", {"accuracy": p}, draw, scored, sets, high=None
            )
    return table


def confusions(shares_of: Sequence[float], right: Sequence[float]) -> np.ndarray:
    """(C, C) how often each gold label is predicted as each label; wrong ones go to the others by their frequency."""
    prior = np.array(shares_of) / np.sum(shares_of)
    table = np.outer(prior * (1 - np.array(right)) / (1 - prior), prior)
    np.fill_diagonal(table, prior * right)
    return table


def of_classes(rng: np.random.Generator, n: int, table: np.ndarray) -> tuple[np.ndarray, None]:
    cells = rng.choice(table.size, n, p=table.ravel() / table.sum())
    return np.stack(np.divmod(cells, len(table)), axis=1), None


CLASSES = [  # rows, shares of the labels, recall of each, metrics
    *((n, "3 labels, one of 1 %", (0.6, 0.39, 0.01), (0.9, 0.85, 0.6), ("f1_macro", "balanced_accuracy"))
      for n in (200, 1000, 2000, 3000)),
    (3000, "3 labels, one of 1 % and hard", (0.6, 0.39, 0.01), (0.9, 0.85, 0.2), ("f1_macro",)),
    *((n, "2 labels, 68 %", (0.32, 0.68), (0.7, 0.9), ("f1", "matthews_correlation", "f1_macro"))
      for n in (100, 277, 1043)),
    *((n, "2 labels, 3 %", (0.97, 0.03), (0.98, 0.6), ("f1", "matthews_correlation")) for n in (200, 1000)),
    (1000, "2 labels, 3 % and hard", (0.97, 0.03), (0.98, 0.2), ("f1", "matthews_correlation")),
    *((n, "2 labels, accuracy .99", (0.5, 0.5), (0.99, 0.99), ("f1", "matthews_correlation", "f1_macro"))
      for n in (60, 200)),
    (100, "3 labels, accuracy .98", (1, 1, 1), (0.98,) * 3, ("f1_macro", "matthews_correlation")),
    *((n, "20 labels, accuracy .8", (1,) * 20, (0.8,) * 20, ("f1_macro",)) for n in (500, 1000)),
    (3080, "77 labels, accuracy .9", (1,) * 77, (0.9,) * 77, ("f1_macro",)),
]  # fmt: skip


def classes(scale: float) -> Simulated:
    """Macro F1, balanced accuracy, Matthews and F1, with rare labels and with few errors."""
    table = Simulated(
        "Rare classes, few errors",
        "Coverage is over the sets that get an interval: macro averages, F1, and Matthews of two labels get none where a "
        "label has fewer than 20 rows.",
        COLUMNS,
    )
    for n, what, prior, right, names in CLASSES:
        joint = confusions(prior, right)
        scored = scoring.Classes([str(i) for i in range(len(prior))], len(prior) - 1)
        places = np.stack(np.divmod(np.arange(joint.size), len(joint)), axis=1)
        truth = {k: float(v[0]) for k, v in scored.of(places)(1e9 * joint.reshape(1, -1)).items()}

        def draw(rng: np.random.Generator, n: int = n, joint: np.ndarray = joint) -> tuple[np.ndarray, None]:
            return of_classes(rng, n, joint)

        sets = int((150 if len(prior) > 3 else 300) * scale)
        table.rows += cell(names, f"{n:,}", what, truth, draw, scored, sets)
    return table


def label_sets(scale: float) -> Simulated:
    """28 labels whose frequencies fall as in a set of emotions, at 0.5."""
    table = Simulated(
        "Sets of labels",
        "28 labels, of 30 % to 0.3 % of the rows, predicted at 0.5. A macro average over a label that is in fewer than "
        "20 rows has no interval.",
        COLUMNS,
    )
    names = ("f1_macro", "f1_micro", "accuracy")
    for n, count, floor in (
        (500, 28, 0.003),
        (1000, 28, 0.003),
        (5000, 28, 0.003),
        (1000, 6, 0.05),
        (4000, 28, 0.01),
    ):
        prior = np.geomspace(0.3, floor, count)
        recall, alarm = np.linspace(0.8, 0.5, count), 0.15 * prior
        scored = scoring.LabelSets([str(i) for i in range(count)])

        def draw(rng: np.random.Generator, n: int = n, prior: np.ndarray = prior, recall: np.ndarray = recall,
                 alarm: np.ndarray = alarm) -> tuple[np.ndarray, None]:  # fmt: skip
            gold = rng.random((n, len(prior))) < prior
            said = rng.random(gold.shape) < np.where(gold, recall, alarm)
            return np.concatenate([gold, said, said], axis=1), None

        hit, made_up = prior * recall, (1 - prior) * alarm
        f1 = 2 * hit / (prior + hit + made_up)
        whole = 2 * hit.sum() / (prior + hit + made_up).sum()
        truth = {
            "f1_macro": f1.mean(),
            "f1_micro": whole,
            "accuracy": np.prod(hit + (1 - prior) * (1 - alarm)),
        }
        sets = int({500: 60, 1000: 80, 4000: 60, 5000: 20}[n] * scale) or 1
        table.rows += cell(names, f"{n:,}", f"{count} labels, down to {floor:.1%}", truth, draw, scored, sets)
    return table


def numbers(scale: float) -> Simulated:
    """Correlations and errors, of normal numbers and of grades from 0 to 5 whose errors are uneven."""
    table = Simulated(
        "Numbers",
        "Gold numbers that are normal, or grades from 0 to 5 whose errors grow towards the middle. Below 50 rows there is "
        "no interval.",
        COLUMNS,
    )

    def normal(rng: np.random.Generator, n: int) -> np.ndarray:
        x = rng.normal(size=n)
        return np.stack([x, 0.85 * x + rng.normal(size=n) * 0.5], axis=1)

    def grades(rng: np.random.Generator, n: int) -> np.ndarray:
        x = rng.uniform(0, 5, n)
        error = rng.normal(size=n) * (0.3 + 0.2 * np.minimum(x, 5 - x))
        return np.stack([x, np.clip(x + error, 0, 5)], axis=1)

    names = ("pearson", "spearmanr", "mean_absolute_error", "mean_squared_error")
    for what, make in (("normal", normal), ("grades", grades)):
        truth = Resamples(make(np.random.default_rng(0), 300_000), scoring.Numbers()).of()
        for n in (2, 30, 50, 100, 300):

            def draw(
                rng: np.random.Generator, n: int = n, make: Callable[..., np.ndarray] = make
            ) -> tuple[np.ndarray, None]:
                return make(rng, n), None

            sets = int({2: 50, 30: 50, 50: 400, 100: 250, 300: 80}[n] * scale) or 1
            table.rows += cell(names, str(n), what, truth, draw, scoring.Numbers(), sets)
    return table


def documents(scale: float) -> Simulated:
    """Entities in documents whose difficulty differs."""
    table = Simulated(
        "Entities in documents",
        "Documents of 15 sentences (alike, or of very different lengths); the log-odds of a right entity differ between "
        "documents by a standard deviation of 0, 0.5 or 1. Where there are fewer than 10 documents there is no interval.",
        COLUMNS,
    )
    cells = [(n, sd, 0.0) for sd in (0.5, 1.0) for n in (5, 10, 20, 50, 200)] + [
        (50, 0.0, 0.0),
        (20, 0.5, 0.9),
        (50, 1.0, 0.9),
    ]
    for number, sd, uneven in cells:

        def draw(rng: np.random.Generator, number: int = number, sd: float = sd, uneven: float = uneven
                 ) -> tuple[np.ndarray, Groups]:  # fmt: skip
            sizes = np.maximum(
                1, np.round(15 * np.exp(uneven * rng.normal(size=number) - uneven**2 / 2))
            ).astype(int)
            of = np.repeat(np.arange(number), sizes)
            p = 1 / (1 + np.exp(-2.2 - sd * rng.normal(size=number)[of]))
            gold = rng.poisson(1.5, len(of))
            hit = rng.binomial(gold, p)
            predicted = hit + rng.poisson((1 - p) * 1.5)
            words = np.full(len(of), 20)
            return np.stack([hit, hit, gold, predicted, words - gold + hit, words], axis=1), Groups(
                "documents", of
            )

        keys, _ = draw(np.random.default_rng(0), 20_000)
        sums = keys.sum(axis=0)
        truth = {"f1": 2 * sums[1] / (sums[2] + sums[3])}
        what = f"documents differ by {sd}" + (", lengths too" if uneven else "")
        sets = int({5: 100, 200: 200}.get(number, 600) * scale)
        table.rows += cell(["f1"], f"{number} documents", what, truth, draw, scoring.Entities(), sets)
    return table


def articles(scale: float) -> Simulated:
    """Answers on contexts of articles."""
    table = Simulated(
        "Answers on contexts of articles",
        "48 articles (or 35, 10, 5) of about 20 contexts, 10 questions each; exact match is 80 %, and contexts and "
        "articles differ. With contexts as groups what articles share is left out, hence the article where the "
        "rows name one.",
        COLUMNS,
    )
    names = ("f1", "exact_match")
    for number, by, sd in ((48, "articles", 0.25), (48, "articles", 0.5), (35, "articles", 0.5), (10, "articles", 0.5),
                           (5, "articles", 0.5), (48, "contexts", 0.0), (48, "contexts", 0.25)):  # fmt: skip

        def draw(rng: np.random.Generator, number: int = number, by: str = by, sd: float = sd
                 ) -> tuple[np.ndarray, Groups]:  # fmt: skip
            contexts = rng.poisson(18, number) + 2
            article = np.repeat(np.repeat(np.arange(number), contexts), 10)
            context = np.repeat(np.arange(contexts.sum()), 10)
            odds = (
                1.5 + sd * rng.normal(size=number)[article] + 0.5 * rng.normal(size=contexts.sum())[context]
            )
            exact = rng.random(len(odds)) < 1 / (1 + np.exp(-odds))
            partial = np.where(exact, 1, np.round(rng.random(len(odds)) * 4) / 8)
            keys = np.stack([partial, exact], axis=1).astype(float)
            return keys, Groups(by, article if by == "articles" else context)

        keys, _ = draw(np.random.default_rng(0), 3000)
        truth = dict(zip(names, 100 * keys.mean(axis=0), strict=True))
        sets = int((250 if number > 10 else 400) * scale)
        bound = None if by == "contexts" and sd else 93
        table.rows += cell(names, f"{number} articles", f"by {by}, articles differ by {sd}", truth, draw,
                           scoring.Means(names, 100.0), sets, bound, 97 if bound else None)  # fmt: skip
    return table
