"""A checkpoint with a head, its tokenizer and its adapter: ready to score rows and to answer raw inputs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bert_ft import adapters, pretrained
from bert_ft.adapters.base import Adapter, Features
from bert_ft.data import Rows
from bert_ft.errors import InputError, did_you_mean
from bert_ft.rundir import RunDir
from bert_ft.task import Task

FORM = {"encoding", "delimiter", "quoting"}  # of the user's files: what `predict` reads has it too
BLOCK = 2048  # rows encoded, scored and decoded together: what bounds the memory of evaluation and prediction


@dataclass
class Model:
    """What `bert_ft.load` gives for a model folder, and what a run trains."""

    adapter: Adapter
    network: Any
    tokenizer: Any
    accelerator: Any
    unpadding: Any = None  # the handle that makes the network plain again
    sharing: Any = None  # which rows may be in one forward
    scorers: Sequence[Callable[[Any, Any], dict[str, float]]] = ()

    def encode(self, rows: Rows, of: int | None = None) -> Features:
        """Rows (a part of a set of `of` rows) as features, at most `max_length` tokens each."""
        from bert_ft.engine import features

        return features.encode(self.adapter, rows, self.tokenizer, self.adapter.task.recipe.max_length, of)

    def blocks(self, rows: Rows) -> Iterator[tuple[Rows, Features]]:
        """The rows in parts that are encoded, scored and decoded apart, each with its features."""
        for part in self.adapter.blocks(rows, BLOCK):
            yield part, self.encode(part, of=len(rows))

    def infer(self, rows: Rows, blocks: Iterable[tuple[Rows, Features]] | None = None) -> dict[str, np.ndarray]:
        """Predictions for every row, in the order of the rows."""
        from bert_ft.engine import inference

        decoded = []
        for part, features in blocks or self.blocks(rows):
            logits = inference.predict(
                self.network, self.adapter, features, self.accelerator,
                pad=self.tokenizer.pad_token_id, tokens=self.adapter.task.batching.eval_tokens,
                sharing=self.sharing,
            )  # fmt: skip
            decoded.append(self.adapter.decode(logits, features, part))
        return {name: np.concatenate([columns[name] for columns in decoded]) for name in decoded[0]}

    def score(self, predictions: Mapping[str, np.ndarray], rows: Rows) -> dict[str, float]:
        """The task's metrics and the user's own; empty where rows have no labels."""
        metrics = self.adapter.score(predictions, rows)
        if metrics or not self.adapter.task.metric.compute:
            for scorer in self.scorers:
                found = scorer(predictions["prediction"], self.adapter.references(rows))
                if twice := found.keys() & metrics.keys():
                    raise InputError(f"two metrics are called '{min(twice)}'", where="metrics",
                                     remedy="give yours a name: metrics={'mine': ...}")  # fmt: skip
                metrics |= found
        return metrics

    def predict(self, inputs: Any, columns: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
        """Answers raw inputs.

        Args:
            inputs: what the family takes: a text; or a list of texts, of (text, text_pair), of (question, context),
                or of dicts with the task's columns; a dict of lists, a Dataset or a pandas frame.
            columns: role -> column of these, where they are not called as in the task.
        Returns:
            one dict an input, as the adapter's `decode_raw` makes it: `prediction` and `probabilities` by label name,
            `entities`, or an answer.
        """
        if hasattr(inputs, "iloc"):  # a pandas frame or series
            inputs = inputs.to_dict("records") if hasattr(inputs, "columns") else inputs.tolist()
        if isinstance(inputs, Mapping):
            known = (self._column(role, columns or {}) for role in self.adapter.inputs)
            table = {name: inputs[name] for name in known if name in inputs}
            if table and all(isinstance(column, list) for column in table.values()):
                if len({len(column) for column in table.values()}) > 1:
                    raise InputError("these columns are not equally long", where=", ".join(table))
                inputs = [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]
        several = [inputs] if isinstance(inputs, (str, Mapping)) else list(inputs)
        if not several:
            return []
        return self.answer(self.rows(several, columns or {}))

    def answer(self, rows: Rows) -> list[dict[str, Any]]:
        """An answer a row."""
        return list(self.adapter.decode_raw(self.infer(rows), rows))

    def rows(self, inputs: Sequence[Any], columns: Mapping[str, str]) -> Rows:
        """Raw inputs as canonical rows; arguments as of `predict`. Raises InputError: the adapter can't take one."""
        return self.adapter.rows([self._input(item, number, columns) for number, item in enumerate(inputs, 1)])

    def _column(self, role: str, columns: Mapping[str, str]) -> str:
        return columns.get(role) or self.adapter.task.data.columns.get(role, role)

    def _input(self, item: Any, number: int, columns: Mapping[str, str]) -> Any:
        """A dict, or an array, as the adapter takes it."""
        if not isinstance(item, Mapping):
            return item.tolist() if hasattr(item, "tolist") else item
        values = {}
        for role, needed in self.adapter.inputs.items():
            column = self._column(role, columns)
            if item.get(column) is not None:
                values[role] = item[column]
            elif needed:
                raise InputError(f"no '{column}'", where=f"input {number}", remedy=did_you_mean(column, map(str, item)))
        return self.adapter.input(values)

    def __call__(self, *inputs: Any) -> dict[str, Any]:
        """The answer to one input: `model(text)`, `model(text, text_pair)`, `model(question, context)`."""
        return self.predict([inputs[0] if len(inputs) == 1 else inputs])[0]

    def describe(self) -> None:
        """Writes into the model's config what prediction needs beyond it, so that the saved folder alone has it all; the
        tokenizer will truncate in a pipeline where we did."""
        task = self.adapter.task
        kept = task.model_dump(include={"family": True, task.family: True, "recipe": {"max_length"},
                                        "data": {"problem_type"}}, exclude_none=True)  # fmt: skip
        columns = {role: name for role, name in task.data.columns.items() if role in self.adapter.inputs}
        kept["data"] |= {"columns": columns} | task.data.model_dump(include=FORM, exclude_defaults=True)
        self.network.config.bert_ft = {"task": kept, "tuned": self.adapter.tuned}
        self.tokenizer.model_max_length = task.recipe.max_length
        if task.family == "classification":
            side = "left" if task.classification.truncation == "tail" else "right"
            self.tokenizer.truncation_side = self.tokenizer.init_kwargs["truncation_side"] = side  # the latter is saved


def accelerator(precision: str = "auto", log_with: Any = None, folder: Path | None = None) -> Any:
    """An `Accelerator` for whatever device is there; bf16 or fp16 only where the device is good at it.

    Args:
        log_with: its trackers; what they write to disk lies in `folder`.
    """
    import torch
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, is_initialized

    if precision == "auto":
        gpu = torch.cuda.is_available()
        precision = ("bf16" if torch.cuda.is_bf16_supported() else "fp16") if gpu else "fp32"
    if precision == "fp16" and not torch.cuda.is_available():
        raise InputError("fp16 needs a CUDA device", where="recipe.precision", remedy='precision = "auto"')
    if is_initialized():  # an earlier run of this process may have had another precision
        AcceleratorState._reset_state()
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    # accelerate would let launched processes train apart where there is no GPU, unless it is told to use the CPU
    cpu = launched > 1 and not torch.accelerator.is_available()
    try:
        made = Accelerator(mixed_precision="no" if precision == "fp32" else precision, log_with=log_with, cpu=cpu,
                           project_dir=folder)  # fmt: skip
    except ValueError as error:
        raise InputError(str(error), where="log_with") from None
    several = log_with if isinstance(log_with, (list, tuple)) else [log_with]
    wanted = {str(getattr(each, "value", each)) for each in several if isinstance(each, str)}
    for absent in sorted(wanted - {"all"} - {str(getattr(each, "value", each)) for each in made.log_with}):
        raise InputError(f"the tracker '{absent}' is not installed", where="log_with", remedy=f"pip install {absent}")
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true" and made.num_processes > 1:
        _shard(made)
    return made


def _shard(accelerator: Any) -> None:
    """FSDP as our loop needs it: version 2, which shards the model in place; also on CPUs, where accelerate would
    quietly take DDP."""
    from accelerate import DistributedType, FullyShardedDataParallelPlugin
    from accelerate.state import AcceleratorState

    if accelerator.distributed_type == DistributedType.MULTI_CPU:
        plugin = FullyShardedDataParallelPlugin()
        AcceleratorState._shared_state.update(distributed_type=DistributedType.FSDP, fsdp_plugin=plugin)
    if not accelerator.is_fsdp2:
        raise InputError("FSDP of version 1 is not supported", where="accelerate's configuration",
                         remedy="set fsdp_config.fsdp_version: 2, as `bert-ft launch-config fsdp` does")  # fmt: skip


def build(
    task: Task, adapter: Adapter, precision: str, *, network: Any = None, tokenizer: Any = None, log_with: Any = None,
    folder: Path | None = None, fit: bool = False,
) -> tuple[Model, list[str]]:  # fmt: skip
    """Loads the task's checkpoint under its adapter; gives also what the user should know about the weights. To `fit`,
    rows are as long as the checkpoint has positions for; otherwise a length beyond that is refused."""
    import torch
    from accelerate.utils import set_seed

    from bert_ft.engine import cpu, requirements, sharing, unpadding

    cpu.keep_freed(False)
    device = accelerator(precision, log_with, folder)
    set_seed(task.run.seed)  # before the model: the new head comes from the seed
    notes: list[str] = []
    checkpoint = task.run.checkpoint
    if tokenizer is None:
        if checkpoint is None:
            raise InputError("no checkpoint", remedy="name one: --checkpoint ORG/NAME, a folder, or an earlier run")
        tokenizer = pretrained.load_tokenizer(task.run, checkpoint)
    if network is None:
        assert checkpoint is not None
        network, notes = pretrained.load_model(task.run, checkpoint, adapter)
    else:
        notes = pretrained.bind_head(network, adapter)
    if (known := requirements.positions(network)) is not None and fit:
        adapter.task = task = task.override({"recipe.max_length": min(known, task.recipe.max_length)})
    if known is not None and task.recipe.max_length > known:
        message = f"max_length = {task.recipe.max_length}, but the checkpoint has {known} positions"
        remedy = f"--set max_length={known}, or a checkpoint for longer texts"
        raise InputError(message, where="recipe.max_length", remedy=remedy)
    if (known := sharing.vocabulary(network)) is not None and len(tokenizer) > known:
        message = f"the tokenizer has {len(tokenizer):,} tokens, the model embeddings for {known:,}"
        raise InputError(message, where=str(checkpoint), remedy="put the checkpoint's own tokenizer beside its weights")
    if tokenizer.pad_token_id is None:
        remedy = "name one in its tokenizer_config.json: pad_token, a token that no text has"
        raise InputError("the tokenizer has no padding token", where=str(checkpoint), remedy=remedy)
    rule, told = requirements.settle(network, tokenizer, task.recipe.max_length)
    notes = [*notes, *told]
    if task.batching.gradient_checkpointing:
        network.gradient_checkpointing_enable()
    network.to(device.device)
    model = Model(adapter, network, tokenizer, device)
    reason = "padded: batching.unpad = false"
    if task.batching.unpad:
        halves = {"bf16": torch.bfloat16, "fp16": torch.float16}
        model.unpadding = unpadding.unpad(network, halves.get(device.mixed_precision))
        reason = model.unpadding.reason
    model.sharing, told = sharing.find(network, adapter, tokenizer, task.recipe.max_length, rule)
    return model, [*notes, reason, *told]


def load_folder(folder: str, task: Task | None = None) -> Model:
    """A saved model, with what its config says about family, labels and length (or with a task's own)."""
    from transformers import AutoConfig

    # without padding hardly a shape comes twice: oneDNN's own 1,024 kept kernels would be 150 MB and no faster; training
    # does meet them again, in each layer and backwards
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16")
    where = pretrained.locate(folder)
    with pretrained.told(where):
        config = AutoConfig.from_pretrained(where)
    fit, task = task is None, task or task_of(config, where)
    labels: list[Any] = task.data.labels or []
    if not labels and task.family != "qa" and task.data.problem_type != "regression":
        labels = [config.id2label[i] for i in range(config.num_labels)]
    adapter = adapters.find(task.family)(task, labels)
    adapter.tuned = dict(getattr(config, "bert_ft", {}).get("tuned", {}))
    model, notes = build(task.override({"run.checkpoint": where}), adapter, task.recipe.precision, fit=fit)
    if any(note.startswith("new weights") for note in notes):
        raise InputError("this checkpoint has no trained head for the task: " + "; ".join(notes), where=where,
                         remedy="fine-tune it first: bert-ft train")  # fmt: skip
    return model


def load_unfinished(folder: RunDir) -> Model:
    """The model of a run that was interrupted: its best weights so far, or those of its newest checkpoint."""
    from safetensors.torch import load_file

    kept = [*folder.checkpoints.glob("best-*.safetensors"), *folder.checkpoints.glob("step-*[0-9]/state.safetensors")]
    if not kept:
        raise InputError("this run was interrupted before it kept any weights", where=str(folder.path),
                         remedy="finish it: the same command or call goes on with it")  # fmt: skip
    task = folder.task()
    adapter = adapters.find(task.family)(task, task.data.labels or [])
    model, _ = build(task, adapter, task.recipe.precision)
    best = max(kept, key=lambda file: (file.stem.startswith("best"), file.stat().st_mtime))
    with pretrained.told(str(best)):
        whole = load_file(best)
    model.network.load_state_dict({name.removeprefix("model."): tensor for name, tensor in whole.items()
                                   if best.stem != "state" or name.startswith("model.")})  # fmt: skip
    return model


def task_of(config: Any, where: str) -> Task:
    """A task made from a model's config alone: enough to predict."""
    architecture = (config.architectures or ["?"])[0]
    heads = {family: adapters.find(family).head.removeprefix("AutoModel") for family in adapters.FAMILIES}
    family = next(
        (family for family, head in heads.items() if architecture.removesuffix("Simple").endswith(head)), None
    )
    if family is None:
        remedy = "fine-tune it first: bert-ft train"
        raise InputError(f"'{architecture}' has no head that is known here", where=where, remedy=remedy)
    from transformers import AutoTokenizer

    own = getattr(config, "bert_ft", {}).get("task", {})
    positions = getattr(config, "max_position_embeddings", None) or 512
    length = min(positions if positions > 0 else 512, AutoTokenizer.from_pretrained(where).model_max_length)
    labels = [config.id2label[i] for i in range(config.num_labels)]
    if twice := {str(name) for name in labels if labels.count(name) > 1}:
        message = f"two labels of its head are called '{min(twice)}'"
        raise InputError(message, where=where, remedy="rename one in config.json")
    data: dict[str, Any] = {"labels": None if family == "qa" else labels}
    metric: dict[str, Any] = {}
    if family == "classification":
        data["problem_type"] = pretrained.problem_type(config)
        if data["problem_type"] == "regression":
            data["labels"], metric = None, {"compute": ["mean_squared_error"]}
    tree = {"name": Path(where).name, "family": family, "metric": metric, "recipe": {"max_length": int(length)}}
    return Task.model_validate(tree | own | {"data": data | own.get("data", {})})
