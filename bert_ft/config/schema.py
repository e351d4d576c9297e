"""The tables of a task's TOML file: what each key means, its type, range and default.

Imports neither torch nor transformers.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from bert_ft import reading
from bert_ft.metrics import METRIC_NAMES

Label = str | int | bool


def _no_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("no file can have a NUL character in its name")
    return text


Place = Annotated[str, AfterValidator(_no_nul)]
"""A path, a hub id, or a part of one."""
ProblemType = Literal["single_label_classification", "multi_label_classification", "regression"]
Splits = Place | dict[str, Place]
LabelNames = Annotated[
    dict[str, str],
    BeforeValidator(
        lambda names: {str(i): name for i, name in enumerate(names)} if isinstance(names, list) else names
    ),
]
"""Label as it stands in the data -> its name; as a list, the names of the codes 0, 1, ..."""
Names = Annotated[list[str], BeforeValidator(lambda names: [names] if isinstance(names, str) else names)]
"""Several names, or one."""


class Strict(BaseModel):
    """A table of the TOML file: unknown keys and values of another type are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Original(Strict):
    """The files of the benchmark's original distribution, read with `--data-dir DIR`."""

    folder: Place | list[Place] = Field(
        "", description="the distribution's folder name, or names, below DIR (or DIR itself)"
    )
    train: Place | None = None
    evaluate: Splits = "dev.tsv"
    test: Splits | None = None
    columns: dict[str, str] = Field({}, description="as data.columns, in the names of these files")
    names: list[str] | None = Field(None, description="column names of the files that have no header")
    label_names: LabelNames = Field({}, description="as data.label_names, for these files")
    skip_ragged: bool = Field(False, description="leave out, and tell, rows with too few or too many cells")
    delimiter: str = Field("\t", min_length=1, max_length=1, description="of the tables among them")
    quoting: bool = Field(False, description="whether cells of the tables may be quoted")
    encoding: str = Field("utf-8", description="of texts and tables")
    pattern: str | None = Field(None, description="as data.pattern, for these files")
    rename: dict[str, str] = Field(
        {}, description="column as it is called in some of the files -> in the others"
    )
    join: dict[str, list[str]] = Field({}, description="column -> those whose texts it joins by a space")
    only: dict[str, str] = Field({}, description="column -> the value of the rows that are meant")
    label_folders: dict[str, Place] = Field(
        {}, description="label -> its folder in that of a split, with a file for each text"
    )
    label_files: dict[str, Place] = Field(
        {}, description='label -> the file of its texts, a line each; a split is a part of each, "0%:80%"'
    )
    suffix: str = Field(
        "", description='the form of files that have no suffix of their own, such as ".conll"'
    )
    word_start: str = Field(
        "", description="regular expression of what stands before each word in these files"
    )
    word_end: str = Field("", description="regular expression of what stands behind each word in these files")


class Data(Strict):
    """Where the rows come from and what their columns mean."""

    path: Place | None = Field(
        None, description="hub id, folder or file; relative paths start at the TOML file"
    )
    name: Place | None = Field(None, description="configuration of the hub data set")
    revision: Place | None = Field(None, description="branch, tag or commit of the hub data set")
    train: Place = Field("train", description='split name, or a file; "" where there is none')
    evaluate: Splits = Field(
        "validation", description='split or file, or a table of name -> these; "": nothing is trained'
    )
    test: Splits | None = Field(None, description="as `evaluate`; may have no labels")
    validation: Annotated[str, Field(pattern=r"^(\d+(\.\d+)?%|[1-9]\d*/[1-9]\d*)$")] | None = Field(
        None,
        description='training rows held out as the validation split: a share, "10%", or the 2nd of 5 folds, '
        '"2/5"',
    )
    group: str | None = Field(
        None, description="column (document, article, ...) whose rows a split never divides"
    )
    split_seed: int = Field(
        42, description="seed of that split; not the run's, so that seeds stay comparable"
    )
    columns: dict[str, str] = Field({}, description="role (text, text_pair, label, ...) -> column name")
    labels: list[Label] | None = Field(
        None, description="label names in order; found in the training rows if absent"
    )
    label_names: LabelNames = Field(
        {},
        description="label in the data -> its name; or a list, or a file of lines, of the "
        "names of codes 0, 1, ...",
    )
    soft: Names | None = Field(
        None,
        min_length=1,
        description="column of distributions over the labels, or of several annotators' votes; or several "
        "columns, a vote each",
    )
    skip_labels: list[str] = Field(
        [], description='labels, as in the data, whose rows are left out, such as "-" for no consensus'
    )
    label_delimiter: str | None = Field(
        None, min_length=1, description="between the labels of one cell of text"
    )
    problem_type: ProblemType = "single_label_classification"
    encoding: str = Field("utf-8", description="of CSV, TSV and JSON files")
    delimiter: str | None = Field(
        None, min_length=1, max_length=1, description='by default "," in .csv, tab in .tsv'
    )
    quoting: bool | Literal["backslash", "strict"] = Field(
        True,
        description='whether CSV/TSV cells may be quoted; backslash: a quote within one is \\"; strict: one '
        "that opens a cell is never text",
    )
    names: list[str] | None = Field(
        None, min_length=1, description="column names of CSV/TSV files that have no header line"
    )
    pattern: str | None = Field(
        None,
        description="of files with a row a line: an RE2 expression whose named groups are the columns, "
        "'(?P<label>\\S+) (?P<text>.*)'",
    )
    without: Place | None = Field(
        None,
        description="list of rows left out of training, as `check --export` writes it; no set that is scored "
        "changes",
    )
    limit_train: int | None = Field(
        None, gt=0, description="train on the first N rows after the seeded shuffle"
    )
    original: Original | None = None

    @field_validator("validation", mode="before")
    @classmethod
    def _part(cls, value: Any) -> Any:
        if value is not None and not re.fullmatch(r"[\d.]+%|[1-9]\d*/[1-9]\d*", str(value)):
            raise ValueError(
                'a share is written "10%", and the 2nd of 5 folds "2/5"; a file is data.evaluate'
            )
        return value

    @property
    def evaluation_sets(self) -> dict[str, str]:
        """Name -> split of every evaluation set; a single one is called `validation`."""
        if self.validation is not None or isinstance(self.evaluate, str):
            return {"validation": str(self.evaluate)} if self.evaluate or self.validation else {}
        return self.evaluate

    @property
    def test_sets(self) -> dict[str, str]:
        """Name -> split of every test set; a single one is called `test`."""
        return {"test": self.test} if isinstance(self.test, str) else self.test or {}


class Metric(Strict):
    """What is computed, and what picks the best checkpoint."""

    compute: Names = Field(["accuracy"], min_length=1, description="the family's own by default")
    mode: Literal["conlleval", "seqeval-strict", "partial-overlap"] = Field(
        "conlleval", description="how NER counts"
    )
    best: str | None = Field(None, description="METRIC or SET/METRIC; the first of `compute` by default")
    positive: Label | None = Field(None, description="the label that binary F1, precision and recall are of")


class Options(Strict):
    """What a family's own table of the task file holds: nothing, for a family that needs none. Also what the
    family says of a task where its file is silent; a family brings a subclass."""

    table: ClassVar[str] = ""
    """Name of the table; empty: the family's own name. Who extends a family inherits the name."""
    usual_length: ClassVar[int | None] = None
    """`recipe.max_length` where a task names none; None: as for every task."""

    @classmethod
    def default_metrics(cls, problem_type: str) -> list[str]:
        """Names of the metrics that a task computes which names none; the first picks the best checkpoint."""
        return ["accuracy"]

    def metric_names(self, problem_type: str) -> Sequence[str]:
        """Names of all metrics that the family can compute under these options."""
        return METRIC_NAMES


def _absolute(path: Any) -> Any:
    if not isinstance(path, (str, Path)) or "\0" in str(path):
        return path
    return str(reading.path(path).resolve())


def _checkpoint(place: Any) -> Any:
    """A folder by its absolute path, so that the run can be repeated from any working directory; a hub id."""
    name = str(place) if isinstance(place, Path) else place
    with suppress(OSError, ValueError):  # no file can have this name
        if isinstance(name, str) and name and Path(name).expanduser().is_dir():
            return os.path.abspath(Path(name).expanduser())
    return name


class RunSpec(Strict):
    """What makes one run of a task: written into the run's task.toml, so that the file alone repeats it."""

    checkpoint: Annotated[Place | None, BeforeValidator(_checkpoint)] = None
    revision: Place | None = Field(None, description="branch, tag or commit of a hub checkpoint")
    intermediate: Place | None = Field(
        None, description="task that the checkpoint is trained on first, by that task's own recipe: mnli"
    )
    seed: int = Field(
        42, ge=0, lt=2**32, description="the head, the order of the rows and dropout follow from it"
    )
    data_dir: Annotated[Place | None, BeforeValidator(_absolute)] = Field(
        None, description="folder of the benchmark's original files (DIR/MRPC/train.tsv, ...)"
    )
    trust_remote_code: bool = Field(
        False, description="not obeyed: --trust-remote-code ORG/NAME, in each call, is"
    )
    save_dtype: Literal["float32", "checkpoint"] = Field(
        "float32",
        description="type of the saved weights; checkpoint: as its file has them. Training is always in "
        "float32",
    )
    folds: int | None = Field(
        None, gt=1, description="cross-validate: K runs, each training row held out once; mean and spread"
    )
    calibration: Literal["temperature", "platt", "isotonic", "none"] = Field(
        "temperature",
        description="what probabilities are calibrated by, on the set that picks the weights; platt and "
        "isotonic: each label by itself, which can change answers; scores of entities and of answers to "
        "questions are by platt or isotonic alone, and change none",
    )
    custom: list[str] = Field(
        [], description="the Python objects this run was given: not repeatable from the file"
    )


class Execution(Strict):
    """How a run is carried out: no part of what it is, so that its `task.toml` does not hold it."""

    CALL_ONLY: ClassVar[set[str]] = {"overwrite", "resume", "log_with", "signals", "on", "per_run"}
    """Keys that a file can't set: they replace what lies on the disk, reach out of the machine, or take over
    the process, which is for whoever calls to say."""

    overwrite: bool = Field(False, description="replace a run that lies there")
    resume: bool = Field(False, description="insist that an interrupted run lies there")
    check: bool = Field(True, description="look for faults in the data first, and tell them")
    baselines: bool = Field(
        True, description="tell what simple methods reach on the same rows (tf-idf, the majority, ...)"
    )
    save_every: int | str = Field(
        "10min", description="steps (500) or minutes (10min) between two checkpoints of the training"
    )
    keep_checkpoints: bool = Field(False, description="keep the checkpoints when the run succeeds")
    save_model: bool = Field(True, description="whether the run keeps its model")
    log_with: Any = Field(None, description="tracker: tensorboard, wandb, ... (accelerate's)")
    signals: bool = Field(False, description="SIGINT and SIGTERM save the state and leave")
    on: str | None = Field(
        None,
        description="where its runs are made, if it is of several: ray, or ray://HOST:PORT; this machine by "
        "default",
    )
    per_run: str | None = Field(
        None,
        description="what each of them asks the cluster for, cpus=4,gpus=1,memory=16GB; one CPU, and one GPU "
        "where there are any",
    )
    quiet: bool = Field(
        False, description="print no progress and no notes, but errors, and results of a command"
    )

    @model_validator(mode="after")
    def _asks_a_cluster(self) -> Execution:
        if self.per_run is not None and self.on is None:
            raise ValueError("per_run is what a run asks a cluster for: name it with on (--on ray)")
        return self

    @field_validator("save_every")
    @classmethod
    def _interval(cls, value: int | str) -> str:
        if not re.fullmatch(r"[1-9]\d*|\d+(\.\d+)?min", str(value)):
            raise ValueError("not an interval")
        return str(value)
