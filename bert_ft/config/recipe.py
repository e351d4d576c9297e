"""`[recipe]` and `[batching]` of a task: what is trained, and how a step is computed."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from bert_ft.config.schema import Strict
from bert_ft.errors import did_you_mean


class Range(Strict):
    """The numbers from `low` to `high`, both included, that a search draws from: whole ones where all given
    are whole."""

    low: int | float
    high: int | float
    log: bool = Field(False, description="drawn evenly on a logarithmic scale")
    step: int | float | None = Field(None, gt=0, description="between two neighbours")

    @model_validator(mode="after")
    def _check(self) -> Range:
        if not self.low < self.high:
            raise ValueError("low has to be below high")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("log goes with a low above 0, and without a step")
        if self.step is not None and round((self.high - self.low) / self.step, 6) % 1:
            raise ValueError("no number of steps leads from low to high")
        return self


SCHEDULE_KEYS = {
    "schedule_floor": ("cosine", "polynomial", "constant_with_cooldown"),
    "schedule_power": ("polynomial",),
    "cooldown_ratio": ("constant_with_cooldown",),
}
"""Key of the recipe -> the schedules that read it."""


METHOD_KEYS = {
    "features": ("freeze", "train_only", "lora", "reinitialize", "ema", "head_learning_rate"),
    "contrastive": ("train_only", "lora", "ema", "head_learning_rate"),
}
"""Method -> the keys of the recipe that it has no use for."""


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(name, str) and name for name in value)


class Lora(Strict):
    """`[recipe.lora]`: a low-rank change is trained beside the weights of some layers, which stay as they are
    (Hu et al. 2021); so are the head and whatever else is new."""

    rank: int = Field(8, gt=0, description="of the change, whose matrices have rank times width numbers")
    alpha: float = Field(16.0, gt=0, description="the change counts alpha / rank times")
    dropout: float = Field(0.0, ge=0, lt=1, description="of what goes into the change")
    targets: Literal["attention", "all-linear"] | list[str] = Field(
        "attention",
        description='what is changed: "attention", queries and values; "all-linear" of the layers; or ends '
        "of modules' names",
    )
    save: Literal["merged", "adapter"] = Field(
        "merged", description="a plain model, or the change alone, as peft reads it"
    )

    @field_validator("targets", mode="before")
    @classmethod
    def _targets(cls, value: Any) -> Any:
        if value in ("attention", "all-linear") or _are_names(value):
            return value
        raise ValueError(
            '"attention", "all-linear" or a list of ends of names is meant, as targets = ["query", "value"]'
        )


class Recipe(Strict):
    """The hyperparameters of one training. Steps are optimizer steps of the whole (global) batch."""

    SPACES: ClassVar[set[str]] = {"grid", "search"}
    """Keys that say what is tried: no part of one training."""

    method: Literal["fine-tuning", "features", "contrastive"] = Field(
        "fine-tuning",
        description='"features": the encoder stays, the head is fitted to what it makes of the rows; '
        '"contrastive", for few rows: the encoder first learns which rows have one label (SetFit, Tunstall '
        "et al. 2022)",
    )
    learning_rate: float = Field(3e-5, gt=0, lt=10, description="at the peak of the schedule")
    batch_size: int = Field(
        32, gt=0, description="rows an optimizer step, over all processes and micro-batches"
    )
    epochs: float = Field(3.0, gt=0, description="passes over the training rows; 0.5 is half of one")
    max_steps: int | None = Field(
        None, gt=0, description="end a training after N optimizer steps, whatever `epochs` says"
    )
    min_steps: int | None = Field(
        None, gt=0, description="optimizer steps that a training has at least, whatever `epochs` says"
    )
    max_length: int = Field(
        128, gt=2, description="tokens a row, special ones included; longer rows are truncated, and counted"
    )
    schedule: Literal[
        "linear", "cosine", "constant", "polynomial", "inverse_sqrt", "constant_with_cooldown"
    ] = "linear"
    schedule_floor: float = Field(
        0.0, ge=0, lt=1, description="share of the peak that cosine, polynomial and cooldown end at"
    )
    schedule_power: float = Field(1.0, gt=0, description="of the polynomial; 1 is linear")
    cooldown_ratio: float = Field(
        0.1, gt=0, le=1, description="share of the steps in which constant_with_cooldown falls, linearly"
    )
    warmup_ratio: float = Field(0.0, ge=0, lt=1, description="share of the steps")
    warmup_steps: int | None = Field(None, ge=0, description="takes the place of warmup_ratio")
    layer_decay: float = Field(
        1.0, gt=0, le=1, description="of the rate from layer to layer, the embeddings lowest (ELECTRA: 0.8)"
    )
    head_learning_rate: float | None = Field(
        None, gt=0, lt=10, description="of the task's head; that of the rest by default"
    )
    freeze: Literal["embeddings", "encoder"] | Annotated[int, Field(ge=0)] | list[str] | None = Field(
        None,
        description='what is not trained: "embeddings"; n, these and the lowest n layers; "encoder"; or '
        "beginnings of parameters' names. New weights always are",
    )
    train_only: Literal["biases", "norms"] | list[str] | None = Field(
        None,
        description='what is trained beside the head and new weights: "biases" (BitFit, Ben Zaken et al. '
        '2022); "norms", of normalisation layers; or beginnings of parameters\' names',
    )
    lora: Lora | None = Field(
        None, description="{ rank, alpha, dropout, targets, save }: low-rank changes alone are trained"
    )
    reinitialize: int = Field(
        0, ge=0, description="highest layers drawn anew, and the pooler with them (Zhang et al. 2021)"
    )
    both_orders: bool = Field(
        False, description="train on each pair in reverse order too (ELECTRA, for MRPC and STS-B)"
    )
    weight_decay: float = Field(0.0, ge=0, description="not on biases and LayerNorm")
    adam_beta1: float = Field(0.9, ge=0, lt=1)
    adam_beta2: float = Field(0.999, ge=0, lt=1)
    adam_epsilon: float = Field(1e-8, gt=0)
    bias_correction: bool = Field(
        True, description="of Adam's averages; BERT's and ELECTRA's own optimizer had none"
    )
    max_grad_norm: float = Field(1.0, ge=0, description="0: no clipping")
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    class_weights: Literal["balanced"] | dict[str, float] | None = None
    dropout: float | None = Field(
        None, ge=0, lt=1, description="of every dropout; the checkpoint's own by default"
    )
    head_dropout: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="of the dropout before the head; `dropout`, or the checkpoint's, by default",
    )
    ema: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="of an average of the weights over the steps, about 1 / (1 - ema) of them: what is "
        "evaluated and kept",
    )
    eval_every: Literal["epoch"] | Annotated[int, Field(gt=0)] = Field(
        "epoch", description='"epoch" or steps'
    )
    patience: int | None = Field(None, gt=0, description="stop after N evaluations without a better metric")
    keep: Literal["best", "last"] = Field("best", description="which weights the run ends with")
    precision: Literal["auto", "fp32", "bf16", "fp16", "bf16-steps"] = Field(
        "auto",
        description='"auto" is bf16 or fp16 on a GPU that is good at it, bf16-steps on a CPU that is, else '
        'fp32; "bf16-steps": training steps in bf16, answers in fp32',
    )
    grid: dict[str, list[Any]] = Field({}, description="what the paper searched")
    search: dict[str, list[bool | int | float | str] | Range] = Field(
        {},
        description="what `bert-ft search` draws from: key -> a list of values, or { low, high, log or step "
        "}",
    )

    @field_validator("train_only", mode="before")
    @classmethod
    def _train_only(cls, value: Any) -> Any:
        if value is None or value in ("biases", "norms") or _are_names(value):
            return value
        raise ValueError(
            '"biases", "norms" or a list of beginnings of names is meant, as train_only = ["bert.pooler"]'
        )

    @model_validator(mode="after")
    def _one_part(self) -> Recipe:
        parts = [key for key in ("freeze", "train_only", "lora") if getattr(self, key) is not None]
        if len(parts) > 1:
            raise ValueError(f"{parts[0]} and {parts[1]} both say what is trained: leave one of them out")
        return self

    @model_validator(mode="after")
    def _method_keys(self) -> Recipe:
        if self.method == "fine-tuning":
            return self
        for key in METHOD_KEYS[self.method]:
            if getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(f'{key} is not for the method "{self.method}": leave it out')
        return self

    @model_validator(mode="after")
    def _schedule_keys(self) -> Recipe:
        for key, schedules in SCHEDULE_KEYS.items():
            if self.schedule not in schedules and getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(
                    f"{key} is for the schedules {', '.join(schedules)}, not for {self.schedule}"
                )
        if self.schedule == "inverse_sqrt" and not (self.warmup_steps or self.warmup_ratio):
            raise ValueError(
                "the schedule inverse_sqrt falls from the end of the warmup on: set warmup_ratio"
            )
        return self

    @field_validator("freeze", mode="before")
    @classmethod
    def _freeze(cls, value: Any) -> Any:
        number = isinstance(value, int) and not isinstance(value, bool) and value >= 0
        if value is None or value in ("embeddings", "encoder") or number or _are_names(value):
            return value
        raise ValueError(
            '"embeddings", "encoder", a number of layers from 0, or a list of beginnings of names is meant, '
            'as freeze = ["bert.embeddings"]'
        )

    @property
    def saves_adapter(self) -> bool:
        """Whether a run keeps low-rank changes alone, and no whole model."""
        return self.lora is not None and self.lora.save == "adapter"

    @field_validator("search")
    @classmethod
    def _space(cls, search: dict[str, Any]) -> dict[str, Any]:
        known = (cls.model_fields.keys() - cls.SPACES) | {f"lora.{key}" for key in Lora.model_fields}
        for key, values in search.items():
            if key not in known:
                raise ValueError(f"unknown key '{key}'; {did_you_mean(key, known)}")
            if isinstance(values, Range):
                values = [values.low, values.low + (values.step or 0), values.high]
            if not values:
                raise ValueError(f"{key} has no values")
            for value in values:
                table, _, leaf = key.rpartition(".")
                try:
                    cls.model_validate({table: {leaf: value}} if table else {key: value})
                except ValidationError as error:
                    raise ValueError(f"{key} = {value!r}: {error.errors()[0]['msg']}") from None
        return search


class Batching(Strict):
    """How a step's arithmetic is carried out; none of it changes what the recipe means."""

    unpad: bool = Field(
        True, description="drop the padding inside the encoder's layers (kernels/padding_free.py)"
    )
    first_token: bool = Field(
        True,
        description="compute the last layer for the first token alone where the head reads no other "
        "(kernels/last_layer.py)",
    )
    lean: bool = Field(
        True,
        description="cheaper arithmetic on CPUs: dropout drawn in bulk, memory kept (kernels/cpu.py), linear "
        "layers by oneDNN (kernels/products.py), AdamW over the rows of tables that were seen "
        "(kernels/seen_rows.py)",
    )
    graphs: bool = Field(
        True,
        description="on a GPU, from 100 steps on: record the layers for each size of batches, and replay "
        "them (kernels/graphs.py)",
    )
    order: Literal["random", "length"] = Field("random", description="length: batches of rows of near length")
    equal_lengths: bool = Field(
        False, description="train in micro-batches of rows of one length; the batch stays"
    )
    gradient_accumulation_steps: int = Field(
        1, gt=0, description="micro-batches a step; recipe.batch_size stays"
    )
    gradient_checkpointing: bool = False
    deduplicate: bool = Field(True, description="evaluation and prediction: compute equal inputs once")
    eval_tokens: int = Field(
        4096,
        gt=0,
        description="positions an evaluation batch may hold; a large GPU takes more, a CPU at most 1,024",
    )
    log_every: int = Field(10, gt=0, description="steps between two lines of the log")
