"""What of a task is written into a model's config, and read back from it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bert_ft import families
from bert_ft.config.families import BUILTIN, options_of
from bert_ft.config.task import Task, validated
from bert_ft.errors import InputError
from bert_ft.metrics import label_calibration
from bert_ft.modeling.loading_errors import loading_errors

FORM = {
    "encoding",
    "delimiter",
    "quoting",
    "names",
    "pattern",
}  # of the user's files: what `predict` reads has it too
SAVED = {"recipe": {"max_length"}, "data": {"problem_type", "columns", *FORM}}
"""Of a task, what is saved in the model's config, and taken from it; beside the family and its own table."""


def task_of(config: Any, where: str) -> Task:
    """A task made from a model's config alone: enough to predict. Of the task that bert-ft wrote into it when
    the model was saved, nothing else than `SAVED` and the family's own table is taken.

    Raises:
        InputError: a head that is not known here, or a value of another type or range.
    """
    own = _table(getattr(config, "bert_ft", None), "task", where)
    architecture = str((config.architectures or ["?"])[0])
    heads = {family: families.find(family).head for family in BUILTIN}
    kind = next(
        (
            family
            for family, head in heads.items()
            if architecture.removesuffix("Simple").endswith(head.removeprefix("AutoModel"))
        ),
        None,
    )
    family = own.get("family", kind)
    if kind is None or not isinstance(family, str) or families.find(family).head != heads[kind]:
        message = (
            f"this checkpoint ({architecture}) has no head for a task, so that it can't answer anything yet"
        )
        remedy = f"fine-tune it first: bert-ft train TASK --checkpoint {where}; then load the run"
        raise InputError(message, where=where, remedy=remedy)
    from transformers.models.auto.tokenization_auto import get_tokenizer_config

    bound = getattr(config, "max_position_embeddings", None) or 512
    positions = bound if isinstance(bound, (int, float)) and bound > 0 else 512  # XLNet says -1
    with loading_errors(where):
        lengths = [positions, get_tokenizer_config(where).get("model_max_length") or positions]
    if not all(isinstance(length, (int, float)) for length in lengths):
        raise InputError("max_position_embeddings and model_max_length have to be numbers", where=where)
    stated = families.find(family).task_of_head(config, labels_of(config, where))
    tree: dict[str, Any] = {
        "name": Path(where).name,
        "family": family,
        "metric": stated.get("metric", {}),
        "data": stated.get("data", {}),
        "recipe": {"max_length": int(min(lengths))},
    }
    for table in ("data", "recipe"):
        given = _table(own, table, where)
        tree[table] |= {key: given[key] for key in SAVED[table] & given.keys()}
    options = _options_table(family, own)
    if options in own:
        tree[options] = own[options]
    return validated(tree, f"{where}: bert_ft in its config")


def tuned_of(config: Any, where: str) -> dict[str, Any]:
    """What was tuned when the model was trained: thresholds by label, or of no answer, and what calibrates
    probabilities."""
    tuned = _table(getattr(config, "bert_ft", None), "tuned", where)
    thresholds = _table(tuned, "thresholds", where)
    for name, value in [*thresholds.items(), ("null_threshold", tuned.get("null_threshold", 0.0))]:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise InputError(
                f"the threshold '{name}' is not a number",
                where=f"{where}: bert_ft in its config",
                remedy="train the model again, or mend config.json",
            )
    divisors = tuned.get("temperature", 1.0)
    for value in divisors.values() if isinstance(divisors, dict) else [divisors]:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
            raise InputError(
                "the temperature is not a number above 0",
                where=f"{where}: bert_ft in its config",
                remedy="train the model again, or mend config.json",
            )
    of_scores = _table(tuned, "scores", where)
    for method in label_calibration.METHODS:
        fitted = dict(_table(tuned, method, where))
        if method in of_scores:
            fitted["scores"] = of_scores[method]
        for name, each in fitted.items():
            if not label_calibration.valid(method, each):
                raise InputError(
                    f"the calibration of '{name}' is not one by {method}",
                    where=f"{where}: bert_ft in its config",
                    remedy="train the model again, or mend config.json",
                )
    return dict(tuned)


def passed_over(config: Any) -> list[str]:
    """What a person should know of a config's table `bert_ft`: the keys that are not obeyed."""
    own = getattr(config, "bert_ft", None)
    own = own.get("task") if isinstance(own, dict) else None
    if not isinstance(own, dict):
        return []
    read = {"family", *SAVED, _options_table(str(own.get("family")), own)}
    strange = [table for table in own if table not in read]
    for table in SAVED:
        strange += [f"{table}.{key}" for key in own.get(table) or () if key not in SAVED[table]]
    return (
        [f"not taken from the model's config: {', '.join(map(repr, sorted(map(str, strange))))}"]
        if strange
        else []
    )


def _options_table(family: str, own: Mapping[str, Any]) -> str:
    """The name of the table of a family's options; `own`: the task that a model's config holds."""
    return options_of(family, own).table or family


def _table(tree: Any, key: str, where: str) -> dict[str, Any]:
    """A table within another; empty where there is none."""
    value = tree.get(key, {}) if isinstance(tree, dict) else {} if tree is None else tree
    if not isinstance(value, dict):
        raise InputError(
            f"'{key}' is not a table",
            where=f"{where}: bert_ft in its config",
            remedy="train the model again, or mend config.json",
        )
    return value


def labels_of(config: Any, where: str) -> list[str]:
    """The labels of a config's head, in order."""
    names = config.id2label
    if not isinstance(names, dict) or set(names) != set(range(len(names))):
        raise InputError(
            "id2label does not name the labels 0, 1, 2, ...", where=where, remedy="mend config.json"
        )
    labels = [str(names[i]) for i in range(len(names))]
    if twice := {name for name, count in Counter(labels).items() if count > 1}:
        message = f"two labels of its head are called '{min(twice)}'"
        raise InputError(message, where=where, remedy="rename one in config.json")
    return labels
