"""The model card: `model/README.md` with the hub's metadata (Mitchell et al. 2019; huggingface_hub's card
classes)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bert_ft import families, files, reading
from bert_ft.config.task import Task
from bert_ft.errors import shown
from bert_ft.modeling import pretrained, saved_format
from bert_ft.modeling.loading_errors import loading_errors
from bert_ft.report import choices
from bert_ft.report.rendering import render
from bert_ft.rundir.folder import RunDir
from bert_ft.rundir.naming import short_name

LARGEST = 10_000_000  # bytes of a checkpoint's README
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+|[\w-]+")


def write(folder: RunDir, results: Mapping[str, Any]) -> None:
    """Writes the card of a run that keeps its model; of one that keeps none, nothing."""
    if folder.model.is_dir():
        task = folder.task()
        older = "" if task.recipe.saves_adapter else saved_format.older(folder.model)
        files.write(folder.model / "README.md", text(task, results, folder.environment(), older))


def text(task: Task, results: Mapping[str, Any], environment: Mapping[str, Any], older: str = "") -> str:
    """The card: YAML metadata and Markdown; `older` says what older versions of `transformers` make of the
    model."""
    base, licence = _base(task)
    hub = task.data.path if HUB_ID.fullmatch(task.data.path or "") else None
    metadata = _metadata(task, results, base, licence, hub).to_yaml()
    return render(
        "card.md.j2",
        task=task,
        results=results,
        choices=choices.of_run(results, task),
        environment=environment,
        metadata=metadata,
        licence=licence,
        hub=hub,
        pipeline=families.known(task.family).pipeline_tag,
        arguments=None if task.recipe.saves_adapter else _pipeline_arguments(task),
        adapter=task.recipe.saves_adapter,
        older=older,
        checkpoint=json.dumps(task.run.checkpoint, ensure_ascii=False),
        head=families.known(task.family).head,
        scale=families.known(task.family).metric_scale,
        base=short_name(task.run.checkpoint or "a model object"),
        recipe=task.recipe.model_dump(exclude=task.recipe.SPACES, exclude_none=True),
    )


def _pipeline_arguments(task: Task) -> str | None:
    """What a pipeline has to be told to answer texts beyond `max_length`, as Python writes it; None: there is
    no such pipeline (transformers 5 has none for question answering)."""
    tag = families.known(task.family).pipeline_tag
    if tag == "text-classification":
        several = task.data.problem_type == "multi_label_classification"
        return ", truncation=True, top_k=None" if several else ", truncation=True"
    if tag != "token-classification":
        return None
    longest = max(0, task.recipe.max_length // 2 - 2)  # half a window, as in training, without special tokens
    stride = min(getattr(task.options, "stride", longest), longest)
    return f', aggregation_strategy="first", stride={stride}'


def _metadata(task: Task, results: Mapping[str, Any], base: str | None, licence: Any, hub: str | None) -> Any:
    from huggingface_hub import EvalResult, ModelCardData

    pipeline = families.known(task.family).pipeline_tag
    evaluations = [
        EvalResult(
            task_type=pipeline or task.family,
            dataset_type=hub or shown(task.name),
            dataset_name=shown(task.title or task.name),
            dataset_config=task.data.name if hub else None,
            dataset_split=name,
            metric_type=shown(metric),
            metric_name=shown(metric),
            metric_value=value,
        )
        for name, values in results["metrics"].items()
        for metric, value in values.items()
        if value is not None
    ]
    return ModelCardData(
        base_model=base,
        license=licence,
        library_name="peft" if task.recipe.saves_adapter else "transformers",
        datasets=[hub] if hub else None,
        pipeline_tag=pipeline,
        tags=["bert-ft", task.family],
        model_name=shown(f"{short_name(task.run.checkpoint or 'model')}-{task.name}"),
        eval_results=evaluations or None,
    )


def _base(task: Task) -> tuple[str | None, Any]:
    """The hub id of the checkpoint, or of what a folder's card says it was made from; and the licence that
    its card names."""
    from huggingface_hub import ModelCard, hf_hub_download

    if task.run.checkpoint is None or "model" in task.run.custom:
        return None, None
    where = pretrained.locate(task.run.checkpoint)
    local = Path(where).is_dir()
    try:
        with loading_errors(where):
            name = "README.md"
            file = Path(where, name) if local else hf_hub_download(where, name, revision=task.run.revision)
            data: Any = ModelCard(reading.text(Path(file), LARGEST), ignore_metadata_errors=True).data
    except Exception:  # there is none, or it has some fault: it is somebody else's
        return None if local else where, None
    return data.base_model if local else where, data.license
