"""From a run to a folder with its model as ONNX, which is there once it has given the run's own answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bert_ft import files, reading
from bert_ft.data.rows import Rows
from bert_ft.engine import batches
from bert_ft.errors import InputError, disk
from bert_ft.families.features import Features
from bert_ft.kernels import last_layer
from bert_ft.modeling import exported, saving
from bert_ft.modeling.model import Model
from bert_ft.run import Run
from bert_ft.rundir import folder as rundir
from bert_ft.tools.export import example, graph, parity

SMALLER = {"int8": graph.quantize, "fp16": graph.halve}
TRACED = (7, 5, 3)  # tokens of the rows that the network is traced with


def export(
    path: str | Path,
    output: str | Path | None = None,
    *,
    precisions: Sequence[str] = (),
    trust_remote_code: Any = None,
    tell: Callable[[str], None] = lambda line: None,
) -> tuple[Path, dict[str, Any]]:
    """Writes a finished run's model as ONNX, with its tokenizer, its labels and an example beside it, after
    the graph has answered the validation rows as the model does.

    Args:
        output: the folder; `onnx` in that of the run by default, where `predict --onnx` looks for it.
        precisions: what is written and measured beside float32: "int8", "fp16".
        trust_remote_code: as for `finetune`.
        tell: takes one line of what is done.
    Returns:
        the folder, and what stands in its `parity.json`.
    Raises:
        InputError: no finished run with a model, a network that can't be exported, or a graph whose logits
            are not the model's; then nothing is left behind.
    """
    for package in ("onnx", "onnxruntime", "onnxscript"):
        exported.needs(package)
    run = Run(path, trust_remote_code=trust_remote_code)
    if run.dir.state != "finished":
        raise InputError("this run is not finished", where=str(run.path), remedy="finish it, then export it")
    target = run.dir.onnx if output is None else reading.path(output)
    _refuse_others(target)
    run.task = run.task.override({"recipe.precision": "fp32"})
    model: Model = run.model
    if type(model.network).__module__.startswith("transformers_modules"):
        raise InputError("a model with code of its own is not exported", where=str(run.path))
    rows, name = _rows(run)
    probes = parity.of_lengths(model, rows)
    tell(f"answering {len(rows):,} rows ({name}) with torch")
    expected = parity.answer(model, rows, probes)
    with disk(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with files.folder_beside(target) as temporary:
            tell("making the graph")
            outputs = _write(model, rows, temporary, run.dir.model)
            result = _result(run, name, graph.size(model.network), expected)
            for precision in ("fp32", *precisions):
                if precision != "fp32":
                    fp32 = temporary / exported.FILES["fp32"]
                    SMALLER[precision](fp32, temporary / exported.FILES[precision])
                tell(f"answering them with onnxruntime, {precision}")
                other = exported.load(temporary, precision, run.dir.model, run.task, run._trusted)
                found = parity.answer(other, rows, probes)
                result["onnx"][precision] = found.beside(expected) | {
                    "bytes": (temporary / exported.FILES[precision]).stat().st_size
                }
                if precision == "fp32" and not found.distance(expected) <= expected.bound:
                    raise _apart(found, expected, run)
            result["outputs"] = outputs
            result["opset"] = graph.opset(temporary / exported.FILES["fp32"])
            files.write_json(temporary / exported.PARITY, result)
            files.clear(target, rundir.FOLDERS["onnx"])  # of an older export
    return target, result


def _write(model: Model, rows: Rows, folder: Path, of: Path) -> list[str]:
    """Writes everything but smaller graphs and what is measured; returns the names of the graph's outputs."""
    lean = model.narrowing is not None
    model.plain()
    network = model.network.to("cpu")
    outputs = _draw(network, _traced(model, rows), folder / exported.FILES["fp32"], lean)
    saving.save_beside(folder, network, model.tokenizer)
    stated = exported.described(model, of, outputs) | {"versions": graph.versions()}
    files.write_json(folder / exported.ANSWERING, stated)
    files.write(folder / exported.EXAMPLE, example.text(model, outputs))
    return outputs


def _draw(network: Any, inputs: dict[str, Any], file: Path, lean: bool) -> list[str]:
    """Writes the graph; a lean one computes of the last layer what the head reads, if the exporter can follow
    that."""
    narrowing = last_layer.narrow(network) if lean else None
    if narrowing is not None and narrowing.active:
        try:
            return graph.write(network, inputs, file)
        except InputError:
            file.unlink(missing_ok=True)
        finally:
            narrowing.remove()
    return graph.write(network, inputs, file)


def _traced(model: Model, rows: Rows) -> dict[str, Any]:
    """A small ragged batch of real tokens."""
    import torch

    _, features = next(iter(model.blocks(rows)))
    longest = int(features.lengths.argmax())
    start = int(features.offsets[longest])
    count = int(features.lengths[longest])
    width = model.sharing.width
    lengths = [count] * len(TRACED) if model.sharing.equal_lengths else [min(n, count) for n in TRACED]
    at = np.concatenate([start + np.arange(length) for length in lengths])
    few = Features(
        np.concatenate([[0], np.cumsum(lengths)]),
        {name: column[at] for name, column in features.tokens.items()},
        values={},
        weights=np.ones(len(lengths)),
    )
    pad = model.tokenizer.pad_token_id
    inputs, _ = batches.collate(few, np.arange(len(lengths)), pad, torch.device("cpu"), width)
    return {name: inputs[name] for name in model.tokenizer.model_input_names if name in inputs}


def _rows(run: Run) -> tuple[Rows, str]:
    """The rows of the set that picked the run's best step, as the run keeps them, and its name."""
    name = run.task.best_metric[0]
    scored = run.scored(name)
    if scored.rows is None or not len(scored.rows):
        raise InputError(
            "this run keeps no validation rows, so that a graph can't be held against its model",
            where=str(run.path),
            remedy="train it again with this version",
        )
    return Rows(scored.rows, f"{run.path}, {name}"), name


def _result(run: Run, name: str, size: int, expected: parity.Answers) -> dict[str, Any]:
    return {
        "run": str(run.path.resolve().name),
        "set": name,
        "metric": run.task.best_metric[1],
        "rows": len(expected.predictions),
        "bound": expected.bound,
        "versions": graph.versions(),
        "torch": {"metrics": expected.metrics, "cpu_seconds": round(expected.seconds, 3), "bytes": size},
        "onnx": {},
    }


def _apart(found: parity.Answers, expected: parity.Answers, run: Run) -> InputError:
    return InputError(
        f"the graph's logits are up to {found.distance(expected):.1e} from the model's, and "
        f"{expected.bound:.1e} is allowed: nothing is exported",
        where=str(run.path),
        remedy="`bert-ft predict` without --onnx answers with it",
    )


def _refuse_others(target: Path) -> None:
    """Refuses a folder that holds anything but an earlier export."""
    if target.exists() and not target.is_dir():
        raise InputError("this is no folder", where=str(target), remedy="name a folder: -o exported")
    if target.is_dir() and any(target.iterdir()) and not (target / exported.ANSWERING).is_file():
        raise InputError(
            "this folder holds something else than an earlier export",
            where=str(target),
            remedy="name a new folder: -o exported",
        )
