"""An exported graph in the place of a network: the folder that `bert-ft export` writes, and the model that
answers with it.

Tokens, windows, batches, thresholds and spans go the way that they go with torch: logits alone come from
elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from bert_ft import families, reading
from bert_ft.config.task import Task
from bert_ft.errors import InputError
from bert_ft.modeling import pretrained, vocabulary, weights
from bert_ft.modeling.encoder import evaluate_only
from bert_ft.modeling.model import Model
from bert_ft.modeling.saved_task import labels_of, task_of, tuned_of

FILES = {"fp32": "model.onnx", "int8": "model_int8.onnx", "fp16": "model_fp16.onnx"}
"""Precision -> the file of its graph."""
ANSWERING, PARITY, EXAMPLE = "answering.json", "parity.json", "example.py"
TOKENS = 1024  # padded positions of a batch: small ones have less padding, which a graph computes
LONGEST = 10_000_000  # bytes of these JSON files
AGAIN = "export the run again: bert-ft export RUN --to onnx"
FLOATS = ("tensor(float)", "tensor(float16)")
SHAPE: dict[str, Any] = {"weights": "0", "outputs": ["logits"], "sharing": {}, "versions": {}}


def needs(package: str) -> Any:
    """A package of the extra `onnx`. Raises InputError: it is not installed."""
    from importlib import import_module

    try:
        return import_module(package)
    except ModuleNotFoundError:
        raise InputError(
            f"ONNX needs the package {package.partition('.')[0]}, which is not installed",
            remedy="pip install 'bert-ft[onnx]'",
        ) from None


class Graph:
    """A graph under onnxruntime, called as the network that it was made from.

    Attributes:
        file: of the graph.
        config: the network's.
        width: logits of a row, or of a token; None: any number.
        training: never.
    """

    training = False

    def __init__(self, file: Path, config: Any = None, width: int | None = None) -> None:
        """Opens a graph with as many threads as torch has.

        Raises:
            InputError: onnxruntime is not installed, or can't read the file.
        """
        import torch

        runtime = needs("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors alone: each of these is raised too
        try:
            self.session = runtime.InferenceSession(str(file), options, ["CPUExecutionProvider"])
        except Exception as error:  # which has no base class of its own
            raise InputError(
                f"onnxruntime can't read this file: {_first_line(error)}", where=str(file), remedy=AGAIN
            ) from None
        self.file = file
        self.config = config
        self.width = width
        self.inputs = [each.name for each in self.session.get_inputs()]
        self.outputs = [each.name for each in self.session.get_outputs()]
        if other := [each.name for each in self.session.get_outputs() if each.type not in FLOATS]:
            raise InputError(f"its output '{other[0]}' is no number", where=str(file), remedy=AGAIN)

    def eval(self) -> Graph:
        """The graph itself: it knows no dropout."""
        return self

    def train(self, mode: bool = True) -> Graph:
        """The graph itself: it can't be trained."""
        return self

    def __call__(self, **inputs: Any) -> Any:
        """Tensors (B, L) of the tokenizer's columns -> an object with the tensors that the network gives, by
        its names.

        Raises:
            InputError: the graph is of something else, or no graph of ours: it asks for other columns, can't
                be computed, or gives no numbers for each row.
        """
        import torch

        if other := [name for name in self.inputs if name not in inputs]:
            message = f"it asks for '{other[0]}', which the tokenizer does not give"
            raise InputError(message, where=str(self.file), remedy=AGAIN)
        fed = {name: inputs[name].cpu().numpy() for name in self.inputs}
        try:
            found = self.session.run(None, fed)
        except Exception as error:  # as above
            message = f"onnxruntime can't compute this graph: {_first_line(error)}"
            raise InputError(message, where=str(self.file), remedy=AGAIN) from None
        rows = len(inputs["attention_mask"])
        fits = all(value.ndim > 1 and len(value) == rows for value in found)
        if not fits or (self.width and "logits" in self.outputs and found[0].shape[-1] != self.width):
            shapes = ", ".join(str(value.shape) for value in found)
            message = f"it gives arrays of {shapes} for {rows} rows with {self.width or 'some'} logits each"
            raise InputError(message, where=str(self.file), remedy=AGAIN)
        device = inputs["attention_mask"].device
        tensors = (torch.from_numpy(value).to(device) for value in found)
        return SimpleNamespace(**dict(zip(self.outputs, tensors, strict=True)))


def described(model: Model, folder: Path, outputs: Sequence[str]) -> dict[str, Any]:
    """What `answering.json` says of a model: all that answering needs beside graph, config and tokenizer.

    Args:
        folder: of the model's weights, whose digest tells whether they are still those of the graph.
    """
    from bert_ft.modeling import requirements

    task = model.adapter.task
    return {
        "family": task.family,
        "weights": weights.digest(folder),
        "max_length": task.recipe.max_length,
        "positions": requirements.positions(model.network),
        "outputs": list(outputs),
        "labels": list(model.adapter.names),
        "tuned": model.adapter.tuned,
        "sharing": asdict(model.sharing),
    }


def load(
    folder: Path,
    precision: str,
    of: Path,
    task: Task | None = None,
    trusted: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
) -> Model:
    """The model that answers with an exported graph.

    Args:
        folder: what `bert-ft export` wrote. precision: a key of `FILES`.
        of: the folder of the model that it was made from; it need not be there any more.
        task, trusted, settings: as for `loading.load_folder`.
    Raises:
        InputError: no such folder, no graph in this precision, one of an older model, or no onnxruntime.
    """
    from bert_ft.engine.accelerator import accelerator

    run = of.parent
    flag = "" if precision == "fp32" else f" --{precision}"
    remedy = f"bert-ft export {run} --to onnx{flag}"
    if precision not in FILES:
        raise InputError(f"'{precision}' is no precision of a graph", remedy="known: " + ", ".join(FILES))
    needs("onnxruntime")
    file = folder / FILES[precision]
    if not file.is_file() or not (folder / ANSWERING).is_file():
        what = "this run has not been exported" if precision == "fp32" else f"there is no {FILES[precision]}"
        raise InputError(what, where=str(folder), remedy=remedy)
    stated = read(folder / ANSWERING)
    if weights.digest(of) not in (None, stated["weights"]):
        raise InputError(
            "the model has other weights than when this was exported", where=str(folder), remedy=remedy
        )
    evaluate_only()
    where = str(folder)
    config = pretrained.load_config(where, trusted=trusted)
    task = (task or task_of(config, where)).override({"run.checkpoint": where, **(settings or {})})
    task = task.override({"batching.eval_tokens": min(task.batching.eval_tokens, TOKENS)})
    labels: list[Any] = task.data.labels or []
    if not labels and families.find(task.family).has_labels(task):
        labels = labels_of(config, where)
    adapter = families.find(task.family)(task, labels, tuned_of(config, where))
    adapter = pretrained.in_order_of(adapter, config)
    most = stated.get("positions")
    if isinstance(most, int) and task.recipe.max_length > most:
        message = f"max_length = {task.recipe.max_length}, but the checkpoint has {most} positions"
        raise InputError(message, where="recipe.max_length", remedy=f"use --set max_length={most}")
    tokenizer, notes = vocabulary.load(task.run, where, (), trusted)
    graph = Graph(file, config, adapter.config()["num_labels"])
    if graph.outputs != stated["outputs"]:
        message = f"it gives {', '.join(graph.outputs)}, and {ANSWERING} says {', '.join(stated['outputs'])}"
        raise InputError(message, where=str(file), remedy=AGAIN)
    model = Model(graph, tokenizer, accelerator("fp32"), task.recipe.max_length, adapter=adapter)
    model.sharing = _sharing(stated["sharing"], folder / ANSWERING)
    model.notes = notes
    return model


def read(file: Path) -> dict[str, Any]:
    """One of the folder's JSON files. Raises InputError: it is damaged, or another program's."""
    try:
        value = reading.strict(reading.text(file, LONGEST))
    except ValueError as error:
        raise InputError(f"not JSON: {error}", where=str(file), remedy=AGAIN) from None
    shape = SHAPE if file.name == ANSWERING else {}
    if not isinstance(value, dict) or not all(
        reading.fits(value.get(key), part) for key, part in shape.items()
    ):
        raise InputError("this is not what bert-ft writes here", where=str(file), remedy=AGAIN)
    return value


def _sharing(stated: Mapping[str, Any], file: Path) -> Any:
    from bert_ft.engine.sharing import Sharing

    numbers = (stated.get(key) for key in ("end_token", "ends", "width"))
    if stated.keys() != asdict(Sharing()).keys() or not all(isinstance(n, int | None) for n in numbers):
        raise InputError("'sharing' is not what bert-ft writes here", where=str(file), remedy="export again")
    return Sharing(**stated)


def _first_line(error: BaseException) -> str:
    return re.sub(r"^\[ONNXRuntimeError\] : \d+ : ", "", " ".join(str(error).split()))[:200]
