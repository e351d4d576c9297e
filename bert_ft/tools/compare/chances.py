"""Whether one side of a comparison had more chances on the rows that both are compared on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bert_ft.report import choices
from bert_ft.report.choices import Choice
from bert_ft.report.scored_set import consistent
from bert_ft.run import Run


def notes(groups: Mapping[str, Sequence[Run]], split: str, metrics: Sequence[str]) -> list[str]:
    """A note for each group whose numbers were chosen among more, or fewer, than those of the first.

    Args:
        groups: name -> its runs. split: the scored set. metrics: those that are compared.
    """
    chances = {name: _chances(runs, split, metrics) for name, runs in groups.items()}
    (first, own), *others = chances.items()
    result = []
    for name, found in others:
        different = {metric for metric in metrics if found[metric] != own[metric]}
        if different:
            metric = next(metric for metric in metrics if metric in different)
            result.append(
                f"unequal chances on {split}: {metric} of {first} is {own[metric]}, of {name} "
                f"{found[metric]}; what was chosen among more looks better on these rows without being "
                'better: compare on a set that chose nothing (--split test), or train with keep = "last"'
            )
    return result


def _chances(runs: Sequence[Run], split: str, metrics: Sequence[str]) -> dict[str, str]:
    """Metric -> among what it was chosen, in words; of several runs each different one."""
    made = []
    for run in runs:
        with consistent(run.path):
            made.append(choices.of_run(run.results, run.task, run.log))
    return {
        metric: ", ".join(sorted({_words(each.of(split, metric)) for each in made})) for metric in metrics
    }


def _words(made: Choice | None) -> str:
    return "not chosen on these rows" if made is None else made.what
