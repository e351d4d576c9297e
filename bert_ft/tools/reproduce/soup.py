"""One model of several seeds: their weights averaged, greedily (Wortsman et al. 2022)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bert_ft import files
from bert_ft.config.task import Task
from bert_ft.errors import InputError, disk
from bert_ft.metrics import LOWER_IS_BETTER
from bert_ft.modeling import calibrating, saving, weights
from bert_ft.prepared import prepare_for
from bert_ft.tools.reproduce.conditions import points
from bert_ft.tools.reproduce.plan import Planned

RECORD = "soup.json"


def greedy(runs: Mapping[int, Planned], folder: Path, trusted: tuple[str, ...] = ()) -> dict[str, Any]:
    """Averages the weights of runs of one task over different seeds into `folder/model`: from the best on, in
    the order of their validation scores, each that does not make the average worse there.

    A soup of the same runs that lies there is not made again.

    Args:
        runs: seed -> finished run, with its model.
    Returns:
        What is written into soup.json: `seeds`, those in it; `of`, all that were tried; `made_of`, sha256 of
        their weights; set -> metric -> points of the soup in `metrics`, and of its best seed in `best`.
    Raises:
        InputError: a run has kept no model.
    """
    from bert_ft.modeling.loading import load_folder

    refuse_without_models(list(runs.values()))
    made_of = {str(seed): weights.digest(runs[seed].folder.model) for seed in sorted(runs)}
    if (record := _record(folder)) is not None and record["made_of"] == made_of:
        return record
    task = next(iter(runs.values())).folder.task()
    name, metric = task.best_metric
    sign = -1 if metric in LOWER_IS_BETTER else 1
    scores = {seed: run.folder.results()["metrics"] for seed, run in runs.items()}
    order = sorted(runs, key=lambda seed: (-sign * (scores[seed][name][metric] or 0.0), seed))

    def load(seed: int) -> Any:
        return load_folder(str(runs[seed].folder.model), task, trusted)

    model = load(order[0])
    calibrating.drop(model.adapter)  # what calibrates that seed's probabilities is not the soup's
    sets = prepare_for(model.adapter, task, {}, training=task.data.validation is not None).scored

    def score(name: str) -> dict[str, float]:
        """Metrics of a set, by the weights as they are; thresholds are tuned anew on the set that chooses."""
        predictions = model.infer(sets[name])
        if name == task.best_metric[0]:
            model.adapter.tune(predictions, sets[name])
        found: dict[str, float] = model.score(predictions, sets[name])
        return found

    mean = _tensors(model)
    best, seeds = sign * score(name)[metric], [order[0]]
    for seed in order[1:]:
        other = _tensors(load(seed))
        tried = {
            key: tensor + (other[key] - tensor) / (len(seeds) + 1) if tensor.is_floating_point() else tensor
            for key, tensor in mean.items()
        }
        model.network.load_state_dict(tried)
        value = sign * score(name)[metric]
        if value >= best:
            best, mean = value, tried
            seeds.append(seed)
    model.network.load_state_dict(mean)
    if task.run.calibration != "none":
        predictions = model.infer(sets[name])
        model.adapter.tune(predictions, sets[name])
        calibrating.fit(model.adapter, predictions, sets[name])
    metrics = {each: score(each) for each in sorted(sets, key=lambda each: each != name)}
    model.describe()
    with disk(folder):
        folder.mkdir(parents=True, exist_ok=True)
    saving.save_model(folder / "model", model.network, model.tokenizer)
    record = {
        "task": task.name,
        "seeds": seeds,
        "of": sorted(runs),
        "made_of": made_of,
        "chosen_by": [name, metric],
        "metrics": {each: _in_points(task, values) for each, values in metrics.items() if values},
        "best": {each: _in_points(task, values) for each, values in scores[order[0]].items()},
    }
    files.write_json(folder / RECORD, record)
    return record


def refuse_without_models(runs: Sequence[Planned]) -> None:
    """Refuses finished runs that have kept no model, all of them at once."""
    bare = [run for run in runs if run.folder.state == "finished" and not run.folder.model.is_dir()]
    if bare:
        raise InputError(
            "a soup is an average of models, and these runs have kept none",
            details=[str(run.folder.path) for run in bare],
            remedy="remove their folders, so that --soup trains them again",
        )


def _record(folder: Path) -> dict[str, Any] | None:
    """What an earlier soup wrote here; None where there is none that is whole."""
    try:
        record = json.loads((folder / RECORD).read_bytes())
        return record if {"of", "made_of", "seeds", "metrics", "best"} <= record.keys() else None
    except (OSError, ValueError, RecursionError, AttributeError):
        return None


def _tensors(model: Any) -> dict[str, Any]:
    return {name: tensor.clone() for name, tensor in model.network.state_dict().items()}


def _in_points(task: Task, values: Mapping[str, float | None]) -> dict[str, float]:
    return {metric: points(value, task.family, metric) for metric, value in values.items()}


def line(record: Mapping[str, Any]) -> str:
    """A soup in words: what is in it, and what it scores beside its best seed, set by set."""
    name, metric = record["chosen_by"]
    sets = [
        f"{each} {metric} {values[metric]:.2f} ({record['best'][each][metric]:.2f} the best seed alone)"
        for each, values in record["metrics"].items()
        if metric in values and metric in record["best"].get(each, {})
    ]
    seeds = ", ".join(map(str, record["seeds"]))
    chosen = f"chosen on {name}, where it is somewhat too good"
    many = len(record["of"])
    return f"{record['task']}, greedy soup of seeds {seeds} of {many}, {chosen}: {'; '.join(sets)}"
