"""Task, Recipe, Reference: the schema of a TOML file, and finding one by name.

Imports neither torch nor transformers; reading a task never runs code.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from bert_ft.errors import InputError, did_you_mean
from bert_ft.metrics import METRIC_NAMES

RESERVED = ("classification", "ner", "qa")
Label = str | int | bool
Splits = str | dict[str, str]


class Strict(BaseModel):
    """A table of the TOML file: unknown keys and values of another type are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Original(Strict):
    """The files of the benchmark's original distribution, read with `--data-dir DIR`: tab-separated, no quoting."""

    folder: str = Field(description="the distribution's folder name, below DIR (or DIR itself)")
    train: str | None = None
    evaluate: Splits = "dev.tsv"
    test: Splits | None = None
    columns: dict[str, str] = Field(description="as data.columns, in the names of these files")
    names: list[str] | None = Field(None, description="column names of the files that have no header")
    label_names: dict[str, str] = Field({}, description="label as it stands in the file -> its name")


class Data(Strict):
    """Where the rows come from and what their columns mean."""

    path: str | None = Field(None, description="hub id, folder or file; relative paths start at the TOML file")
    name: str | None = Field(None, description="configuration of the hub data set")
    revision: str | None = Field(None, description="branch, tag or commit of the hub data set")
    train: str = Field("train", description='split name, or a file; "" where there is none')
    evaluate: Splits = Field("validation", description="split or file; or a table of name -> split or file")
    test: Splits | None = Field(None, description="as `evaluate`; may have no labels")
    validation: Annotated[str, Field(pattern=r"^\d+(\.\d+)?%$")] | None = Field(
        None, description='share of the training rows held out as the validation split, e.g. "10%"'
    )
    split_seed: int = Field(42, description="seed of that split; not the run's, so that seeds stay comparable")
    columns: dict[str, str] = Field({}, description="role (text, text_pair, label, ...) -> column name")
    labels: list[Label] | None = Field(None, description="label names in order; found in the training rows if absent")
    label_names: dict[str, str] = Field({}, description="label as it stands in the data -> its name")
    problem_type: Literal["single_label_classification", "regression"] = "single_label_classification"
    encoding: str = Field("utf-8", description="of CSV, TSV and JSON files")
    delimiter: str | None = Field(None, min_length=1, max_length=1, description='by default "," in .csv, tab in .tsv')
    quoting: bool = Field(True, description="whether CSV/TSV cells may be quoted")
    limit_train: int | None = Field(None, gt=0, description="the first N rows after the seeded shuffle")
    original: Original | None = None

    @property
    def evaluation_sets(self) -> dict[str, str]:
        """Name -> split of every evaluation set; a single one is called `validation`."""
        if self.validation is not None or isinstance(self.evaluate, str):
            return {"validation": str(self.evaluate)}
        return self.evaluate

    @property
    def test_sets(self) -> dict[str, str]:
        """Name -> split of every test set; a single one is called `test`."""
        return {"test": self.test} if isinstance(self.test, str) else self.test or {}


def _metric_name(name: str) -> str:
    if name not in METRIC_NAMES:
        raise ValueError(f"unknown metric '{name}'; {did_you_mean(name, METRIC_NAMES)}")
    return name


class Metric(Strict):
    """What is computed, and what picks the best checkpoint."""

    compute: list[Annotated[str, AfterValidator(_metric_name)]] = Field(["accuracy"], min_length=1)
    best: str | None = Field(None, description="METRIC or SET/METRIC; the first of `compute` by default")
    positive: Label | None = Field(None, description="the label that binary F1, precision and recall are of")


class Recipe(Strict):
    """The hyperparameters of one training. Steps are optimizer steps of the whole (global) batch."""

    learning_rate: float = Field(3e-5, gt=0, lt=10)
    batch_size: int = Field(32, gt=0, description="rows an optimizer step, over all processes and micro-batches")
    epochs: float = Field(3.0, gt=0)
    max_steps: int | None = Field(None, gt=0, description="ends training after N steps, whatever `epochs` says")
    max_length: int = Field(128, gt=2, description="wordpieces, special tokens included; longer rows are truncated")
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    warmup_ratio: float = Field(0.0, ge=0, lt=1, description="share of the steps")
    warmup_steps: int | None = Field(None, ge=0, description="takes the place of warmup_ratio")
    weight_decay: float = Field(0.0, ge=0, description="not on biases and LayerNorm")
    adam_beta1: float = Field(0.9, ge=0, lt=1)
    adam_beta2: float = Field(0.999, ge=0, lt=1)
    adam_epsilon: float = Field(1e-8, gt=0)
    max_grad_norm: float = Field(1.0, ge=0, description="0: no clipping")
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    class_weights: Literal["balanced"] | dict[str, float] | None = None
    dropout: float | None = Field(None, ge=0, lt=1, description="of every dropout; the checkpoint's own by default")
    eval_every: Literal["epoch"] | Annotated[int, Field(gt=0)] = Field("epoch", description='"epoch" or steps')
    patience: int | None = Field(None, gt=0, description="stop after N evaluations without a better metric")
    keep: Literal["best", "last"] = Field("best", description="which weights the run ends with")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    grid: dict[str, list[Any]] = Field({}, description="what the paper searched")


class Batching(Strict):
    """How a step's arithmetic is carried out; none of it changes what the recipe means."""

    unpad: bool = Field(True, description="drop the padding inside the encoder's layers (engine/unpadding.py)")
    order: Literal["random", "length"] = Field("random", description="length: batches of rows of near length")
    gradient_accumulation_steps: int = Field(1, gt=0, description="micro-batches a step; recipe.batch_size stays")
    gradient_checkpointing: bool = False
    eval_tokens: int = Field(8192, gt=0, description="positions an evaluation batch may hold")
    log_every: int = Field(10, gt=0, description="steps between two lines of the log")


class RunSpec(Strict):
    """What makes one run of a task: written into the run's task.toml, so that the file alone repeats it."""

    checkpoint: str | None = None
    revision: str | None = Field(None, description="branch, tag or commit of a hub checkpoint")
    seed: int = Field(42, ge=0, lt=2**32)
    data_dir: str | None = None
    trust_remote_code: bool = False
    custom: list[str] = Field([], description="the Python objects this run was given: not repeatable from the file")


class Reference(Strict):
    """A published number with all its conditions; without any one of them a comparison is worth nothing."""

    checkpoint: str
    split: str
    metric: str = Field(description="the exact form: F1, accuracy, their mean; Pearson, Spearman, their mean")
    value: float
    std: float | None = None
    statistic: Literal["single run", "mean", "median", "best of grid"]
    runs: int | None = Field(None, description="seeds, or grid points; absent where the source does not say")
    intermediate: str = "none"
    recipe: dict[str, Any] = {}
    confidence: Literal["C", "S", "U"] = Field(description="C read in the source, S transcribed, U unconfirmed")
    source: str
    note: str | None = None


class Task(Strict):
    """What to learn: one benchmark task, or one data set of the user's."""

    name: str = ""
    title: str = ""
    family: str = "classification"
    version: int = 1
    data: Data = Data()
    metric: Metric = Metric()
    recipe: Recipe = Recipe()
    batching: Batching = Batching()
    run: RunSpec = RunSpec()
    reference: list[Reference] = []

    @model_validator(mode="after")
    def _check(self) -> Task:
        sets = self.data.evaluation_sets
        for name in [*sets, *self.data.test_sets]:
            if not re.fullmatch(r"\w[\w .-]*", name):  # predictions/<name>.jsonl
                raise ValueError(f"data: '{name}' can't name a set; letters, digits, - and _ can")
        if clash := set(sets) & set(self.data.test_sets) | {"train"} & (set(sets) | set(self.data.test_sets)):
            raise ValueError(f"data: two sets have one name: {', '.join(sorted(clash))}")
        if self.metric.best and "/" in self.metric.best and (s := self.metric.best.split("/")[0]) not in sets:
            raise ValueError(f"metric.best names the evaluation set '{s}'; {did_you_mean(s, sets)}")
        labels = [str(name) for name in self.data.labels or []]
        if twice := {name for name in labels if labels.count(name) > 1}:
            raise ValueError(f"data.labels holds a label twice: {', '.join(sorted(twice))}")
        return self

    @property
    def best_metric(self) -> tuple[str, str]:
        """(evaluation set, metric) that picks the best checkpoint."""
        name = self.metric.best or self.metric.compute[0]
        first = next(iter(self.data.evaluation_sets))
        return (first, name) if "/" not in name else (name.split("/", 1)[0], name.split("/", 1)[1])

    def override(self, changes: dict[str, Any], where: str = "") -> Task:
        """A copy with dotted keys changed; a key without a dot is a key of the recipe, or the one table that has it."""
        tree = self.model_dump()
        for key, value in changes.items():
            table, _, leaf = key.rpartition(".")
            table = table or _table_of(key, where)
            node = tree
            for part in table.split("."):
                if not isinstance(node.get(part), dict):
                    raise InputError(f"unknown key '{key}'", where=where, remedy=did_you_mean(key, dotted_keys()))
                node = node[part]
            node[leaf] = value
        _anchor(tree["data"], Path())
        return _validated(tree, where)

    def dump(self) -> dict[str, Any]:
        """As a plain tree of tables without empty values: what the run's task.toml holds."""
        return self.model_dump(exclude_none=True)


TABLES: dict[str, type[BaseModel]] = {
    "data": Data, "metric": Metric, "recipe": Recipe, "batching": Batching, "run": RunSpec, "reference": Reference,
    "original": Original,
}  # fmt: skip


def dotted_keys() -> dict[str, str]:
    """`recipe.learning_rate` -> its description, of every key that `--set` takes."""
    tables = ("recipe", "batching", "data", "metric", "run")
    return {f"{t}.{k}": f.description or "" for t in tables for k, f in TABLES[t].model_fields.items()}


def _table_of(key: str, where: str) -> str:
    keys = [name.rpartition(".") for name in dotted_keys()]
    tables = [table for table, _, leaf in keys if leaf == key]
    if not tables:
        remedy = did_you_mean(key, {leaf for _, _, leaf in keys})
        raise InputError(f"unknown key '{key}'", where=where, remedy=remedy)
    if len(tables) > 1:
        raise InputError(f"which '{key}'?", where=where, remedy=" or ".join(f"{table}.{key}" for table in tables))
    return tables[0]


def _validated(tree: dict[str, Any], where: str) -> Task:
    try:
        return Task.model_validate(tree)
    except ValidationError as error:
        first = max(error.errors(), key=lambda e: len(e["loc"]))  # of a union, the branch that came furthest
        # pydantic adds that branch to the location: keep what stands in the file
        branch = re.compile(r"str|int|bool|literal\[.*|constrained-.*|dict\[.*")
        path = [str(part) for part in first["loc"] if not branch.fullmatch(str(part))]
        key, remedy = ".".join(path), ""
        if first["type"] == "extra_forbidden":
            message = f"unknown key '{key}'"
            known = _keys_at(path[:-1])
            remedy = did_you_mean(path[-1], known)
        else:
            message = first["msg"].removeprefix("Value error, ")
            message = f"{key} = {first['input']!r}: {message}" if key else message
        remedy = remedy or dotted_keys().get(key) or "see `bert-ft tasks show` for a task that works"
        raise InputError(message, where=where, remedy=remedy) from None


def _keys_at(path: list[str]) -> list[str]:
    model: type[BaseModel] = Task
    for part in path:
        if part.isdigit():
            continue
        model = TABLES.get(part, model)
    return list(model.model_fields)


def tasks_root() -> Path:
    """The folder of built-in tasks: the checkout's own, else the one that ships inside the wheel."""
    package = Path(__file__).resolve().parent
    checkout = package.parent / "tasks"
    return checkout if (package.parent / "pyproject.toml").is_file() and checkout.is_dir() else package / "_tasks"


def builtin() -> dict[str, Path]:
    """Name -> file of every built-in task."""
    return {p.stem: p for p in sorted(tasks_root().rglob("*.toml")) if "suites" not in p.parts}


def find(name: str) -> Path:
    """The TOML file of a task: a path, or the name of a built-in one."""
    path = Path(name).expanduser()
    if path.suffix == ".toml":
        if not path.is_file():
            raise InputError("no such task file", where=name, remedy="`bert-ft tasks` lists the built-in tasks")
        return path
    known = builtin()
    if name in RESERVED:
        raise InputError(f"'{name}' is a family, not a task: it has no file", remedy="`bert-ft tasks` lists the tasks")
    if name not in known:
        remedy = did_you_mean(name, [*known, *RESERVED])
        raise InputError(
            f"unknown task '{name}'", remedy=f"{remedy}  (`bert-ft tasks` lists them; a .toml file works too)"
        )
    return known[name]


def load_task(name: str | Path | Task) -> Task:
    """A task by built-in name, TOML file, or family name (an empty task of that family, for data of one's own).

    Raises:
        InputError: no such task, not TOML, an unknown key, or a value out of range; with file and key.
    """
    if isinstance(name, Task):
        return name
    if str(name) in RESERVED:
        return Task(name=f"own-{name}", title="own data", family=str(name))
    path = find(str(name))
    tree = _read(path, ())
    tree.setdefault("name", path.stem)
    if tree["name"] in RESERVED:
        raise InputError(f"'{tree['name']}' is the name of a family, so no task can bear it", where=str(path),
                         remedy="rename the file, or set `name`")  # fmt: skip
    return _validated(tree, str(path))


def _read(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    path = path.resolve()
    if path in seen:
        raise InputError("`extends` runs in a circle", where=str(path), remedy="give the variant a name of its own")
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"not a TOML file: {error}", where=str(path)) from None
    if "extends" in tree:
        parent = str(tree.pop("extends"))
        near = path.parent / f"{parent}.toml"
        base = _read(near if near.is_file() else find(parent.rpartition("/")[2]), (*seen, path))
        base.pop("name", None)  # a variant bears its own file's name
        tree = _merge(base, tree)
    _anchor(tree.get("data"), path.parent)
    return tree


def _anchor(data: Any, folder: Path) -> None:
    """Makes the local paths of a `[data]` table absolute: relative ones start at `folder`."""

    def absolute(path: str) -> str:
        return str((folder / Path(path).expanduser()).resolve())

    def file(split: Any) -> Any:
        return absolute(split) if isinstance(split, str) and Path(split).suffix else split

    if not isinstance(data, dict):
        return
    if isinstance(path := data.get("path"), str):
        data["path"] = absolute(path) if path.startswith((".", "/", "~")) or (folder / path).exists() else path
        return  # the splits are below it
    for key in data.keys() & {"train", "evaluate", "test"}:
        sets = data[key]
        data[key] = {name: file(split) for name, split in sets.items()} if isinstance(sets, dict) else file(sets)


def _merge(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    both = dict(base)
    for key, value in top.items():
        whole = key in ("evaluate", "test", "class_weights")  # these are one value, not a table of keys
        tables = isinstance(value, dict) and isinstance(both.get(key), dict) and not whole
        both[key] = _merge(both[key], value) if tables else value
    return both
