"""The model card: `model/README.md` with the hub's metadata (Mitchell et al. 2019; huggingface_hub's card classes)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from bert_ft import pretrained, rundir
from bert_ft.rundir import RunDir, short_name
from bert_ft.task import Task

PIPELINES = {"classification": "text-classification", "ner": "token-classification", "qa": "question-answering"}
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+|[\w-]+")


def write(folder: RunDir, results: Mapping[str, Any]) -> None:
    """Writes the card of a run that keeps its model; of one that keeps none, nothing."""
    if folder.model.is_dir():
        rundir.write(folder.model / "README.md", text(folder.task(), results, folder.environment()))


def text(task: Task, results: Mapping[str, Any], environment: Mapping[str, Any]) -> str:
    """The card: YAML metadata and Markdown."""
    base, licence = _base(task)
    hub = task.data.path if HUB_ID.fullmatch(task.data.path or "") else None
    metadata = _metadata(task, results, base, licence, hub).to_yaml()
    pipeline = PIPELINES.get(task.family)
    scores = [f"| {_md(name)} | {_md(metric)} | {'undefined' if value is None else f'{value:.4f}'} |"
              for name, values in results["metrics"].items() for metric, value in values.items()]  # fmt: skip
    counts = [f"- {_md(name)}: {counted['rows']:,} rows, {counted.get('truncated', 0):,} of them truncated, "
              f"{counted.get('unknown', 0):,} unknown tokens" for name, counted in results["counts"].items()]  # fmt: skip
    recipe = task.recipe.model_dump(exclude={"grid"}, exclude_none=True)
    labels = ", ".join(_md(label) for label in (task.data.labels or [])[:100])
    versions = ", ".join(f"{package} {version}" for package, version in environment.get("versions", {}).items())
    use = f'from transformers import pipeline\n\nmodel = pipeline("{pipeline}", "PATH_OR_ID_OF_THIS_MODEL")\n' if pipeline else ""
    use += '\n# or, with its thresholds and long inputs handled as in training\nimport bert_ft\n\nmodel = bert_ft.load("PATH_OF_THIS_MODEL")'
    return f"""---
{metadata.strip()}
---

# {_md(short_name(task.run.checkpoint or "model"))}, fine-tuned on {_md(task.title or task.name)}

Made by bert-ft {results["version"]} from `{_md(short_name(task.run.checkpoint or "a model object"))}`.
{"" if licence else chr(10) + "The licence of that checkpoint is not known here: see where it comes from before you pass this model on." + chr(10)}
## How to use
```python
{use.strip()}
```
{f"{chr(10)}Labels: {labels}{chr(10)}" if labels else ""}
## Results
| set | metric | value |
|---|---|---|
{chr(10).join(scores)}

Metrics are fractions of 1 (correlations of -1 to 1); those of answers to questions are 0 to 100.
The weights are those of step {results.get("best_step", "?")}; {_md(task.best_metric[0])} was also what chose them where `keep` is `best`, so its scores lean high.

## Data
{_md(hub or "data of the user's own")}{f" ({_md(task.data.name)})" if hub and task.data.name else ""}, sha256 of the rows `{environment.get("data_fingerprint")}`.

{chr(10).join(counts)}

## Recipe
{chr(10).join(f"- {key}: {_md(value)}" for key, value in recipe.items())}
- seed: {task.run.seed}

## Limits
- An input is read up to {task.recipe.max_length} tokens at a time.
- It was scored on the sets above alone: other topics, styles, languages and times may be far harder.
- It has the biases of its checkpoint and of its data; neither was examined for this card.

## Environment
{environment.get("device")}, {environment.get("precision")}, {environment.get("processes")} process(es); {versions}
"""


def _metadata(task: Task, results: Mapping[str, Any], base: str | None, licence: Any, hub: str | None) -> Any:
    from huggingface_hub import EvalResult, ModelCardData

    pipeline = PIPELINES.get(task.family, task.family)
    evaluations = [
        EvalResult(task_type=pipeline, dataset_type=hub or task.name, dataset_name=task.title or task.name,
                   dataset_config=task.data.name if hub else None, dataset_split=name, metric_type=metric,
                   metric_name=metric, metric_value=value)
        for name, values in results["metrics"].items() for metric, value in values.items() if value is not None
    ]  # fmt: skip
    return ModelCardData(
        base_model=base, license=licence, library_name="transformers", datasets=[hub] if hub else None,
        pipeline_tag=pipeline if task.family in PIPELINES else None, tags=["bert-ft", task.family],
        model_name=f"{short_name(task.run.checkpoint or 'model')}-{task.name}", eval_results=evaluations or None,
    )  # fmt: skip


def _base(task: Task) -> tuple[str | None, Any]:
    """The hub id of the checkpoint, or of what a folder's card says it was made from; and the licence that its card names."""
    from huggingface_hub import ModelCard, hf_hub_download

    if task.run.checkpoint is None or "model" in task.run.custom:
        return None, None
    where = pretrained.locate(task.run.checkpoint)
    local = Path(where).is_dir()
    try:
        with pretrained.told(where):
            file = Path(where, "README.md") if local else hf_hub_download(where, "README.md", revision=task.run.revision)
            data = ModelCard(Path(file).read_text(encoding="utf-8"), ignore_metadata_errors=True).data
    except Exception:  # there is none, or it has some fault: it is somebody else's
        return None if local else where, None
    return data.base_model if local else where, data.license


def _md(value: Any) -> str:
    """Text that Markdown and HTML leave as it is, in one line."""
    return re.sub(r"([\\`*_\[\]|#])", r"\\\1", escape(" ".join(str(value).split()), quote=False))
