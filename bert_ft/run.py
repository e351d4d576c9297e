"""Run: everything a run's folder holds, and what can be done with it: predict, evaluate."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bert_ft import files, imports
from bert_ft.config.task import Task
from bert_ft.data import loading, overrides
from bert_ft.data.checks import findings
from bert_ft.errors import InputError, did_you_mean
from bert_ft.metrics.choice import SWEPT
from bert_ft.modeling import remote_code, weights
from bert_ft.pages import run_page, scored_sets
from bert_ft.prepared import prepare_for
from bert_ft.report import choices, plots
from bert_ft.report.scored_set import Scored, consistent
from bert_ft.rundir.folder import RunDir

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Run:
    """A finished (or unfinished) run: everything its folder holds.

    Args:
        trust_remote_code: names the folder or hub id whose own code may run when the model is loaded; as for
            `finetune`.
        dtype: "auto": answers are computed as they were scored, by its recipe's precision; "float32";
            "bfloat16"; "checkpoint": the model computes in the type that its saved numbers have; or "int8":
            its linear layers compute in 8 bits, on a CPU.
        onnx: "fp32", "int8" or "fp16": the graph that `bert-ft export` wrote answers in the place of torch.
        model: its model, where that is loaded already.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        trust_remote_code: remote_code.Names = None,
        dtype: str = "auto",
        onnx: str | None = None,
        model: Any = None,
    ) -> None:
        self.dir = RunDir(path)
        if model is not None:
            self.__dict__["model"] = model
        self.dtype = dtype
        self._stored = weights.is_stored(dtype)
        self._trusted = remote_code.names(trust_remote_code)
        self.onnx = onnx
        if onnx is not None and dtype not in ("auto", "float32"):
            remedy = 'leave dtype out, or answer without the graph; of 8 bits it is onnx="int8"'
            raise InputError("an exported graph computes in its own precision", where="dtype", remedy=remedy)
        if self.dir.state in ("new", "foreign"):
            raise InputError(
                "this is not a run folder", where=str(path), remedy="`bert-ft runs` lists the runs"
            )

    @property
    def path(self) -> Path:
        return self.dir.path

    @property
    def int8(self) -> bool:
        """Whether the model computes in 8 bits."""
        return self.dtype == "int8"

    @cached_property
    def task(self) -> Task:
        task = self.dir.task()
        return task.override(changed) if (changed := weights.settings(self.dtype)) else task

    @cached_property
    def results(self) -> dict[str, Any]:
        """`results.json`."""
        return self.dir.results()

    @property
    def metrics(self) -> dict[str, dict[str, float]]:
        """Set name -> metric -> value; raises InputError where the run is unfinished."""
        metrics: dict[str, dict[str, float]] = self.results["metrics"]
        return metrics

    @property
    def environment(self) -> dict[str, Any]:
        return self.dir.environment()

    @property
    def log(self) -> list[dict[str, Any]]:
        """The lines of the log: losses, learning rates, evaluations."""
        return self.dir.log()

    def predictions(self, name: str = "validation") -> list[dict[str, Any]]:
        """The lines of `predictions/<name>.jsonl`."""
        file = self.dir.prediction_file(name)
        if not file.is_file():
            available = [p.stem for p in self.dir.predictions.glob("*.jsonl")]
            raise InputError(
                f"no predictions for '{name}'", where=str(self.path), remedy=did_you_mean(name, available)
            )
        return list(files.read_jsonl(file))

    @cached_property
    def model(self) -> Any:
        """The trained model with its tokenizer and adapter (`bert_ft.modeling.model.Model`); of an unfinished
        run that of its best evaluation so far."""
        custom = [name for name in self.task.run.custom if name in ("adapter", "model")]
        if custom:
            raise InputError(
                f"this run used your own {custom[0]}, which is not saved in its folder",
                where=str(self.path),
                remedy="use the Run that finetune() returned",
            )
        if self.onnx is not None:
            return self._loaded(self.task)
        imports.libraries()
        if self.dir.state == "unfinished":
            from bert_ft.modeling.loading import load_unfinished

            return load_unfinished(self.dir, self.task, self._trusted, self.int8)
        if not self.dir.model.is_dir():
            remedy = "train it again with --save-model and without folds"
            raise InputError("this run has no saved model", where=str(self.path), remedy=remedy)
        return self._loaded(self.task)

    def _loaded(self, task: Task) -> Any:
        """The saved model under a task."""
        if self.onnx is not None:
            from bert_ft.modeling import exported

            return exported.load(self.dir.onnx, self.onnx, self.dir.model, task, self._trusted)
        from bert_ft.modeling.loading import load_folder

        return load_folder(str(self.dir.model), task, self._trusted, self._stored, None, self.int8)

    def predict(self, inputs: Any) -> list[dict[str, Any]]:
        """Answers raw inputs: a text, a list of texts, or a list of pairs."""
        answers: list[dict[str, Any]] = self.model.predict(inputs)
        return answers

    def evaluate(
        self, rows: Any = None, *, data_dir: str | None = None, quiet: bool = False
    ) -> dict[str, dict[str, float]]:
        """Metrics of the run's model on its own evaluation and test sets, or on other rows.

        Args:
            rows: a file, a Dataset, a pandas frame, a dict of lists or a list of dicts; None for the run's
                own sets.
            data_dir: where the benchmark's original files lie now.
        """
        return evaluate(self, rows, data_dir=data_dir, quiet=quiet)

    def plot(self) -> Figure:
        """The learning curves as a matplotlib figure: loss, metric, learning rate, gradient norm."""
        return plots.figure(self.log, self.task.best_metric)

    def errors(self, n: int | None = 20, split: str | None = None) -> list[dict[str, Any]]:
        """The most confident errors on a scored set; None for all of them. Regression: the largest; ner: the
        sentences with the most entities missed or made up.

        Args:
            split: its name; that which picks the best step by default.
        Raises:
            InputError: no scored set of that name, or a family of the user's own.
        """
        with consistent(self.path):
            return self.scored(split).errors()[:n]

    def scored(self, split: str | None = None) -> Scored:
        """A scored set with its predictions and rows; arguments and errors as in `errors`."""
        split = split or ("out_of_fold" if self.task.run.folds else self.task.best_metric[0])
        with consistent(self.path):
            sets = {one.name: one for one in scored_sets.scored(self.dir, self.task, self.results)}
        if split not in sets:
            raise InputError(
                f"no scored set '{split}'", where=str(self.path), remedy=did_you_mean(split, sets)
            )
        return sets[split]

    def __repr__(self) -> str:
        if self.dir.state != "finished":
            return f"Run({str(self.path)!r}, unfinished)"
        from bert_ft.display import table_of

        return f"Run({str(self.path)!r}: {table_of(self.metrics)})"

    def _repr_html_(self) -> str:
        return run_page.of_run(self.dir)


def load(
    folder: str | Path,
    *,
    trust_remote_code: remote_code.Names = None,
    dtype: str = "auto",
    onnx: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Any:
    """A run, or a saved model that is ready to predict: both have `predict`.

    Args:
        trust_remote_code: names the folder or hub id whose own code may run; as for `finetune`.
        dtype: what answers are computed in. "auto": what a run's recipe says (precision), as they were
            scored; "float32"; "bfloat16": faster on CPUs with instructions for it, and other in the third
            digit; "checkpoint": the type that the saved numbers have, with answers that may differ as much;
            or "int8": linear layers of 8 bits, faster on CPUs with VNNI, and answers that differ somewhat
            more.
        onnx: "fp32", "int8" or "fp16": of a run, the graph that `bert-ft export` wrote answers in place of
            torch.
        settings: keys of the task that hold for this model alone: `{"batching.eval_tokens": 256}`.
    """
    if RunDir(folder).state in ("finished", "unfinished"):
        run = Run(folder, trust_remote_code=trust_remote_code, dtype=dtype, onnx=onnx)
        if settings:
            run.task = run.task.override(dict(settings))
        return run
    if onnx is not None:
        raise InputError(
            "a graph answers for a run, and this is none", where=str(folder), remedy="name a run's folder"
        )
    imports.libraries()
    from bert_ft.modeling.loading import load_folder

    stored = weights.is_stored(dtype)
    trusted = remote_code.names(trust_remote_code)
    changed = {**weights.settings(dtype), **(settings or {})}
    return load_folder(str(folder), None, trusted, stored, changed, int8=dtype == "int8")


def evaluate(
    run: Any, rows: Any = None, *, task: Task | None = None, data_dir: str | None = None, quiet: bool = False
) -> dict[str, dict[str, float]]:
    """Metrics of a run's or a saved model's sets, or of other rows given as `rows`, or of another task's
    (AX's, say, with a model of MNLI). What was done to these rows, and what may be wrong with them or with
    the answers, is shown; not if `quiet`.

    Raises:
        InputError: rows without labels, labels the model does not know, data that is not what the run was
            trained on.
    """
    its_own = isinstance(run, Run) and task is None
    if task is None:
        model = run.model if isinstance(run, Run) else run
        task = run.task if isinstance(run, Run) else model.adapter.task
    elif isinstance(run, Run):
        model = run._loaded(task)
    else:
        model = run
    if not its_own:  # what a run holds out is in its task
        task = loading.with_group(task, type(model.adapter))
    sets = overrides.sets(None, rows, None)
    # a file of the user's has the task's columns, not the original's
    changes = {"data.test": None} if sets else {}
    bound = overrides.bound(task, sets, changes, data_dir=None if sets else data_dir)
    # the fingerprint is of all rows; a share that is held out needs them too
    needs_training_rows = its_own or task.data.validation is not None
    training = not sets and bool(bound.data.train) and needs_training_rows
    prepared = prepare_for(model.adapter, bound, overrides.objects(sets), training=training)
    if its_own and not sets:
        _refuse_other_data(run, prepared.splits.fingerprint())
    from bert_ft.display import Display, watching  # which load torch

    quiet = quiet or not files.first_process()
    say = Display(quiet).say
    for line in [*prepared.notes, *findings.lines(prepared.splits.findings)]:
        say(line)
    metrics = {}
    for name, part in prepared.scored.items():
        with watching(quiet):
            predictions = model.infer(part)
        if scores := model.score(predictions, part):
            metrics[name] = scores
        for warning in model.adapter.warnings(predictions, part):
            say(f"{name}: {warning}", "yellow")
    for line in _of_choices(run if its_own and not sets else None, metrics):
        say(line)
    if not metrics:
        raise InputError(
            "these rows have no labels to score against",
            where=part.where,
            remedy="a benchmark's hidden labels are scored by its server alone",
        )
    return metrics


def _of_choices(run: Run | None, metrics: Mapping[str, Mapping[str, float]]) -> list[str]:
    """What to know of numbers chosen on the rows that they are of. `run`: where these are its own sets."""
    if run is not None and run.dir.state == "finished":
        with consistent(run.path):
            return choices.of_run(run.results, run.task, run.log).lines()
    return [
        f"{name}: {' and '.join(some)} are at the best threshold for these very rows: somewhat too good"
        for name, values in metrics.items()
        if (some := [metric for metric in SWEPT if metric in values])
    ]


def _refuse_other_data(run: Run, now: str) -> None:
    then = run.environment["data_fingerprint"]
    if now != then:
        raise InputError(
            "the data has changed since this run was trained",
            where=str(run.path),
            remedy=f"fingerprint: {then[:12]} then, {now[:12]} now; to evaluate other data, name the file",
        )
