"""One run, from rows and a checkpoint to a finished folder."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from bert_ft import families, files
from bert_ft.config.task import Task
from bert_ft.data.checks import texts
from bert_ft.data.rows import Rows, Splits
from bert_ft.finetuning.experiment import Custom
from bert_ft.modeling import pretrained, remote_code, saving, weights
from bert_ft.pages import run_page
from bert_ft.report import scored_set
from bert_ft.run import Run
from bert_ft.rundir import environment
from bert_ft.rundir.folder import RunDir


def train_run(
    task: Task,
    adapter: families.Adapter,
    splits: Splits,
    folder: RunDir,
    identity: dict[str, str | None],
    custom: Custom,
    began: float,
) -> Run:
    """Trains a run into its locked folder."""
    from accelerate.utils import set_seed

    from bert_ft import display
    from bert_ft.engine import loop
    from bert_ft.engine.callbacks import Metrics
    from bert_ft.engine.checkpoints import Checkpoints
    from bert_ft.modeling.loading import build

    model, notes = build(
        task,
        adapter,
        task.recipe.precision,
        network=custom.model,
        tokenizer=custom.tokenizer,
        log_with=custom.log_with,
        folder=folder.path,
        texts=texts.first_texts(splits.train, adapter.texts),
        trusted=custom.trust_remote_code,
    )
    model.scorers = list(custom.scorers().values())
    if custom.loss is not None:
        adapter.loss = custom.loss  # type: ignore[method-assign, assignment]
    accelerator = model.accelerator
    main = accelerator.is_main_process
    show = display.Display(custom.quiet or not main)
    store = Checkpoints(
        folder.checkpoints,
        str(custom.save_every),
        accelerator,
        folder.log_size,
        show.say,
        task.recipe.keep == "best",
    )
    if main:
        now = environment.describe(accelerator, identity, pretrained.commit(task.run), task.run.seed)
        now["trusted_remote_code"] = list(custom.trust_remote_code)
        found = store.newest() if folder.state == "unfinished" else None
        folder.start(task, now) if found is None else folder.resume(task, found[1]["log"], now)
    accelerator.wait_for_everyone()
    show.say(
        f"{task.title or task.name}  ·  {task.run.checkpoint}  ·  {environment.device_line(accelerator)}",
        "bold",
    )
    notes = splits.notes + remote_code.notes(task.run) + notes
    for note in notes:
        show.say(note)
    features = model.encode(splits.train)
    blocks = {name: list(model.blocks(rows)) for name, rows in {**splits.evaluation, **splits.test}.items()}
    counts = {"train": features.counts}
    for name, parts in blocks.items():
        counts[name] = {key: sum(part.counts[key] for _, part in parts) for key in parts[0][1].counts}
    for name, counted in counts.items():
        show.say(display.count_line(name, counted, task.recipe.max_length))
        if unread := display.unread(name, counted):
            show.say(unread, "yellow")
            notes.append(unread)
    if adapter.labels:
        kinds = "/".join(sorted({type(label).__name__ for label in adapter.labels}))
        names = ", ".join(adapter.names[:20]) + " ..." * (len(adapter.names) > 20)
        show.say(f"{len(adapter.labels)} labels ({kinds}): {names}")

    size = sum(p.numel() * p.element_size() for p in model.network.parameters()) / 2**20
    stays = size * custom.save_model
    show.say(f"disk: up to {8 * size + stays:,.0f} MB while training, {stays:,.0f} MB after")

    chosen_by, latest, inference = task.best_metric[0], dict[str, Any](), {"rows": 0, "seconds": 1e-9}

    def inferred(sets: Mapping[str, Rows]) -> Iterator[tuple[str, Rows, dict[str, Any]]]:
        """Predictions set by set; first comes the one that thresholds are tuned on, which hold for all. What
        the weights as they are have predicted already is not computed again."""
        for name in sorted(sets, key=lambda name: name != chosen_by):
            if name not in latest:
                start = time.perf_counter()
                latest[name] = model.infer(sets[name], blocks[name])
                inference["seconds"] += time.perf_counter() - start
                inference["rows"] += len(sets[name])
                if name == chosen_by:
                    adapter.tune(latest[name], sets[name])
            yield name, sets[name], latest[name]

    def evaluate(network: Any) -> Metrics:
        metrics = {}
        latest.clear()
        for name, rows, predictions in inferred(splits.evaluation):
            metrics[name] = model.score(predictions, rows)
            for warning in adapter.warnings(predictions, rows):
                show.say(f"{name}: {warning}", "yellow")
        return {name: metrics[name] for name in splits.evaluation}

    def log(entry: dict[str, Any]) -> None:
        if "out_of_memory" in entry:
            show.say(f"step {entry['step']}: out of memory; {entry['out_of_memory']}, the batch size stays")
        if main:
            folder.append_log({**entry, "seconds": round(time.perf_counter() - began, 3)})
        if custom.log_with is not None:
            flat = {
                f"{n}/{k}": v for n, values in entry.get("evaluation", {}).items() for k, v in values.items()
            }
            accelerator.log(
                {k: v for k, v in entry.items() if isinstance(v, (int, float))} | flat, step=entry["step"]
            )

    if custom.log_with is not None:
        plain = {k: v for k, v in task.recipe.model_dump().items() if isinstance(v, (int, float, str))}
        accelerator.init_trackers("bert-ft", plain)
    set_seed(task.run.seed, device_specific=True)  # dropout draws from here on
    with store.signals(custom.signals):
        state = loop.train(
            model.network,
            adapter,
            features,
            task,
            accelerator,
            pad=model.tokenizer.pad_token_id,
            evaluate=evaluate,
            log=log,
            checkpoints=store,
            callbacks=[show, *custom.callbacks],
            sharing=model.sharing,
        )
    if custom.callbacks:  # one may have changed the weights
        latest.clear()
    if told := display.stalled([line["loss"] for line in folder.log() if "loss" in line]):
        show.say(told, "yellow")
        notes.append(told)
    if task.recipe.keep == "best" and state.best_step != state.step:
        store.load_best(model.network, state.best_step)
        latest.clear()
        show.say(f"the weights of step {state.best_step} are kept: the best {task.best_metric[1]}")
    if dtype := pretrained.save_dtype(
        task.run, custom.trust_remote_code
    ):  # what is scored below is what the saved model gives
        weights.rounded(model.network, dtype)
        latest.clear()
    final: dict[str, dict[str, float]] = {}
    for name, rows, predictions in inferred({**splits.evaluation, **splits.test}):
        final[name] = model.score(predictions, rows)
        notes += [f"{name}: {warning}" for warning in adapter.warnings(predictions, rows)]
        if main:
            files.write_jsonl(folder.prediction_file(name), adapter.lines(predictions, rows))
            if final[name]:
                scored_set.keep(folder, name, rows.table)
            for suffix, value in adapter.files(predictions, rows).items():
                files.write_json(folder.predictions / f"{name}{suffix}.json", value)
    if custom.log_with is not None:
        accelerator.end_training()
    model.network = accelerator.unwrap_model(model.network, keep_fp32_wrapper=False)
    model.describe()
    whole = store.whole(model.network) if custom.save_model else None
    if main:
        if custom.model is not None and model.unpadding is not None:
            model.unpadding.remove()  # the user's own model leaves as it came
        if custom.save_model:
            saving.save_model(folder.model, model.network, model.tokenizer, whole, dtype)
        results = {
            "task": task.name,
            "family": task.family,
            "checkpoint": task.run.checkpoint,
            "seed": task.run.seed,
            "recipe": task.recipe.model_dump(exclude=task.recipe.SPACES),
            "metrics": {name: final[name] for name in blocks if final[name]},
            "counts": counts,
            "best_step": state.best_step if task.recipe.keep == "best" else state.step,
            "steps": state.step,
            "micro_batches": state.micro_batches,
            "timing": {
                "train_seconds": round(state.seconds, 3),
                "train_samples_per_second": round(state.rows / state.seconds, 2),
                "eval_samples_per_second": round(inference["rows"] / inference["seconds"], 2),
                "first_step_seconds": round((state.first_step or began) - began, 3),
            },
            "tuned": adapter.tuned,
            "notes": notes,
            "version": environment.version("bert-ft"),
        }
        run_page.leave(folder, results, show.say)
        if not custom.keep_checkpoints:
            folder.clear("checkpoints")
        files.write_json(folder.results_json, results)
    accelerator.wait_for_everyone()
    run = Run(folder.path)
    run.__dict__["model"] = model  # it is loaded already
    return run
