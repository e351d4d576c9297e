"""A checkpoint with a head, its tokenizer and its adapter: ready to score rows and to answer raw inputs."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bert_ft import adapters, pretrained, vocabulary
from bert_ft.adapters.base import Adapter, Features
from bert_ft.data import Rows
from bert_ft.errors import InputError, did_you_mean
from bert_ft.rundir import RunDir
from bert_ft.task import RESERVED, Task, validated

FORM = {"encoding", "delimiter", "quoting"}  # of the user's files: what `predict` reads has it too
SAVED = {"recipe": {"max_length"}, "data": {"problem_type", "columns", *FORM}}
"""Of a task, what is saved in the model's config, and taken from it; beside the family and its own table."""
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
    notes: Sequence[str] = ()  # what a person should know of it

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
        kept = task.model_dump(include={"family": True, **dict.fromkeys(task.family_tables, True), "recipe": SAVED["recipe"],
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
    folder: Path | None = None, fit: bool = False, texts: Sequence[str] = (), trusted: Sequence[str] = (),
    stored: bool = False,
) -> tuple[Model, list[str]]:  # fmt: skip
    """Loads the task's checkpoint under its adapter; gives also what the user should know about the weights and the
    tokenizer, which is tried on `texts`. To `fit`, rows are as long as the checkpoint has positions for; otherwise a length
    beyond that is refused. `trusted` is what this call names to run code from (`remote_code.names`); `stored`: the model
    computes in the type of the file's numbers, not in float32."""
    import torch
    from accelerate.utils import set_seed

    from bert_ft.engine import cpu, requirements, sharing, unpadding

    cpu.keep_freed(False)
    device = accelerator(precision, log_with, folder)
    set_seed(task.run.seed)  # before the model: the new head comes from the seed
    notes, of_tokenizer = list[str](), list[str]()
    checkpoint = task.run.checkpoint
    if tokenizer is None:
        if checkpoint is None:
            raise InputError("no checkpoint", remedy="name one: --checkpoint ORG/NAME, a folder, or an earlier run")
        tokenizer, of_tokenizer = vocabulary.load(task.run, checkpoint, texts, trusted)
    if network is None:
        assert checkpoint is not None
        network, notes = pretrained.load_model(task.run, checkpoint, adapter, trusted, stored)
    else:
        notes = pretrained.bind_head(network, adapter)
    notes = [*of_tokenizer, *vocabulary.set_types(tokenizer, network, pairs=sum(adapter.inputs.values()) > 1), *notes]
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


def load_folder(folder: str, task: Task | None = None, trusted: Sequence[str] = (), stored: bool = False) -> Model:
    """A saved model, with what its config says about family, labels and length (or with a task's own); `trusted` and
    `stored` as for `build`."""
    # without padding hardly a shape comes twice: oneDNN's own 1,024 kept kernels would be 150 MB and no faster; training
    # does meet them again, in each layer and backwards
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16")
    where = pretrained.locate(folder)
    config = pretrained.load_config(where, trusted=trusted)
    fit, task = task is None, task or task_of(config, where, trusted)
    labels: list[Any] = task.data.labels or []
    if not labels and task.family != "qa" and task.data.problem_type != "regression":
        labels = _labels(config, where)
    adapter = adapters.find(task.family)(task, labels)
    adapter.tuned = tuned_of(config, where)
    bound = task.override({"run.checkpoint": where})
    model, notes = build(bound, adapter, task.recipe.precision, fit=fit, trusted=trusted, stored=stored)
    if any(note.startswith("new weights") for note in notes):
        raise InputError("this checkpoint has no trained head for the task: " + "; ".join(notes), where=where,
                         remedy="fine-tune it first: bert-ft train")  # fmt: skip
    model.notes = passed_over(config)
    return model


def load_unfinished(folder: RunDir, trusted: Sequence[str] = ()) -> Model:
    """The model of a run that was interrupted: its best weights so far, or those of its newest checkpoint; `trusted` as
    for `build`."""
    from safetensors.torch import load_file

    kept = [*folder.checkpoints.glob("best-*.safetensors"), *folder.checkpoints.glob("step-*[0-9]/state.safetensors")]
    if not kept:
        raise InputError("this run was interrupted before it kept any weights", where=str(folder.path),
                         remedy="finish it: the same command or call goes on with it")  # fmt: skip
    task = folder.task()
    adapter = adapters.find(task.family)(task, task.data.labels or [])
    model, _ = build(task, adapter, task.recipe.precision, trusted=trusted)
    best = max(kept, key=lambda file: (file.stem.startswith("best"), file.stat().st_mtime))
    with pretrained.told(str(best)):
        whole = load_file(best)
    model.network.load_state_dict({name.removeprefix("model."): tensor for name, tensor in whole.items()
                                   if best.stem != "state" or name.startswith("model.")})  # fmt: skip
    return model


def task_of(config: Any, where: str, trusted: Sequence[str] = ()) -> Task:
    """A task made from a model's config alone: enough to predict. Of the task that bert-ft wrote into it when the model
    was saved, nothing else than `SAVED` and the family's own table is taken.

    Raises:
        InputError: a head that is not known here, or a value of another type or range.
    """
    own = _table(getattr(config, "bert_ft", None), "task", where)
    architecture = str((config.architectures or ["?"])[0])
    heads = {family: adapters.find(family).head for family in adapters.FAMILIES}
    kind = next(
        (
            family
            for family, head in heads.items()
            if architecture.removesuffix("Simple").endswith(head.removeprefix("AutoModel"))
        ),
        None,
    )
    family = own.get("family", kind)
    if kind is None or not isinstance(family, str) or adapters.find(family).head != heads[kind]:
        remedy = "fine-tune it first: bert-ft train"
        raise InputError(f"'{architecture}' has no head that is known here", where=where, remedy=remedy)
    from transformers.models.auto.tokenization_auto import get_tokenizer_config

    bound = getattr(config, "max_position_embeddings", None) or 512
    positions = bound if isinstance(bound, (int, float)) and bound > 0 else 512  # XLNet says -1
    lengths = [positions, get_tokenizer_config(where).get("model_max_length") or positions]
    if not all(isinstance(length, (int, float)) for length in lengths):
        raise InputError("max_position_embeddings and model_max_length have to be numbers", where=where)
    labels = _labels(config, where)
    data: dict[str, Any] = {"labels": None if kind == "qa" else labels}
    metric: dict[str, Any] = {}
    if kind == "classification":
        data["problem_type"] = pretrained.problem_type(config)
        if data["problem_type"] == "regression":
            data["labels"], metric = None, {"compute": ["mean_squared_error"]}
    tree: dict[str, Any] = {"name": Path(where).name, "family": family, "metric": metric, "data": data,
                            "recipe": {"max_length": int(min(lengths))}}  # fmt: skip
    for table in ("data", "recipe"):
        given = _table(own, table, where)
        tree[table] |= {key: given[key] for key in SAVED[table] & given.keys()}
    for table in _tables_of(family) & own.keys():
        tree[table] = own[table]
    return validated(tree, f"{where}: bert_ft in its config")


def tuned_of(config: Any, where: str) -> dict[str, Any]:
    """The thresholds that were tuned when the model was trained: by label, or of no answer."""
    tuned = _table(getattr(config, "bert_ft", None), "tuned", where)
    thresholds = _table(tuned, "thresholds", where)
    for name, value in [*thresholds.items(), ("null_threshold", tuned.get("null_threshold", 0.0))]:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise InputError(f"the threshold '{name}' is not a number", where=f"{where}: bert_ft in its config",
                             remedy="train the model again, or mend config.json")  # fmt: skip
    return dict(tuned)


def passed_over(config: Any) -> list[str]:
    """What a person should know of a config's table `bert_ft`: the keys that are not obeyed."""
    own = getattr(config, "bert_ft", None)
    own = own.get("task") if isinstance(own, dict) else None
    if not isinstance(own, dict):
        return []
    strange = [table for table in own if table not in {"family", "data", "recipe", *_tables_of(own.get("family"))}]
    for table in SAVED:
        strange += [f"{table}.{key}" for key in own.get(table) or () if key not in SAVED[table]]
    return [f"not taken from the model's config: {', '.join(map(repr, sorted(map(str, strange))))}"] if strange else []


def _tables_of(family: Any) -> set[str]:
    """The tables of options that a saved model's config may have: its family's; of a family of one's own any of ours."""
    return {family} if family in RESERVED else set(RESERVED)


def _table(tree: Any, key: str, where: str) -> dict[str, Any]:
    """A table within another; empty where there is none."""
    value = tree.get(key, {}) if isinstance(tree, dict) else {} if tree is None else tree
    if not isinstance(value, dict):
        raise InputError(f"'{key}' is not a table", where=f"{where}: bert_ft in its config",
                         remedy="train the model again, or mend config.json")  # fmt: skip
    return value


def _labels(config: Any, where: str) -> list[str]:
    """The labels of a config's head, in order."""
    names = config.id2label
    if not isinstance(names, dict) or set(names) != set(range(len(names))):
        raise InputError("id2label does not name the labels 0, 1, 2, ...", where=where, remedy="mend config.json")
    labels = [str(names[i]) for i in range(len(names))]
    if twice := {name for name in labels if labels.count(name) > 1}:
        message = f"two labels of its head are called '{min(twice)}'"
        raise InputError(message, where=where, remedy="rename one in config.json")
    return labels
