"""The training loop: global batches in, a trained model out. Reads top to bottom; every speed trick lives
elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from typing import Any

import torch
from accelerate.utils import broadcast_object_list

from bert_ft.config.task import Task
from bert_ft.engine import batches, optimization
from bert_ft.engine.callbacks import Callback, Metrics
from bert_ft.engine.checkpoints import Checkpoints, Interrupted, State
from bert_ft.engine.sharing import ANY, Sharing
from bert_ft.errors import InputError, did_you_mean
from bert_ft.families.base import Adapter
from bert_ft.families.features import Features
from bert_ft.kernels import cpu, padding_free
from bert_ft.metrics import LOWER_IS_BETTER


def train(
    model: Any,
    adapter: Adapter,
    features: Features,
    task: Task,
    accelerator: Any,
    *,
    pad: int,
    evaluate: Callable[[Any], Metrics],
    log: Callable[[dict[str, Any]], None],
    checkpoints: Checkpoints | None = None,
    callbacks: Sequence[Callback] = (),
    sharing: Sharing = ANY,
) -> State:
    """Trains `model` in place by the task's recipe.

    Args:
        model: a `transformers` model with the family's head.
        features: the training rows.
        accelerator: an `accelerate.Accelerator`; it decides devices, precision and processes.
        evaluate: takes the bare model, gives the metrics of every evaluation set.
        log: takes a line of the log.
        checkpoints: saves and restores the training's state, and keeps the best weights; None: nothing is
            kept.
        sharing: which rows may be in one forward.
    Raises:
        Interrupted: after a signal, once the state is saved.
        InputError: the loss is no longer a number.
    """
    recipe, batching = task.recipe, task.batching
    lengths = features.lengths if batching.order == "length" else None
    plan = batches.Plan(
        len(features), recipe.batch_size, recipe.epochs, task.run.seed, recipe.max_steps, lengths
    )
    keys = sharing.keys(features, batching.equal_lengths)
    optimizer = optimization.optimizer(model, recipe)
    scheduler = optimization.schedule(optimizer, recipe, plan.steps)
    bare = model
    model, optimizer = accelerator.prepare(model, optimizer)
    state = State() if checkpoints is None else checkpoints.restore(bare, optimizer, scheduler)
    state.micro_batches = max(state.micro_batches, batching.gradient_accumulation_steps)
    listeners = list(callbacks) if accelerator.is_main_process else []
    for listener in listeners:
        listener.on_start(plan, features)
    running, norm = torch.tensor(state.running, device=accelerator.device), None
    if checkpoints is not None:
        checkpoints.mark()
    stack = ExitStack()
    whole = True  # whether `state` is that of the weights, with nothing left to do for its step
    try:
        lean = stack.enter_context(cpu.lean(bare, batching.lean))
        model.train()
        for step, indices in plan.batches(state.step):
            began = time.perf_counter()
            while True:
                try:
                    micro = batches.divide(
                        indices,
                        accelerator.num_processes,
                        accelerator.process_index,
                        state.micro_batches,
                        keys,
                    )
                    loss = _backward(
                        model, adapter, features, indices, micro, pad, accelerator, sharing.width
                    )
                    break
                except torch.OutOfMemoryError:
                    optimizer.zero_grad()
                    if accelerator.num_processes > 1 or state.micro_batches >= len(indices):
                        raise
                    state.micro_batches *= 2
                    torch.cuda.empty_cache()
                    told = f"each batch is computed in {state.micro_batches} parts from here on"
                    log({"step": step, "out_of_memory": told})
            whole = False
            running += loss
            if recipe.max_grad_norm > 0:
                if lean and not accelerator.is_fsdp2:
                    norm = cpu.clip(optimizer.optimizer, bare.parameters(), recipe.max_grad_norm)
                else:
                    norm = accelerator.clip_grad_norm_(model.parameters(), recipe.max_grad_norm)
                norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm  # FSDP's is sharded
            learning_rate = scheduler.get_last_lr()[0]
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
            state.since += 1
            state.step = step + 1
            if checkpoints is not None:
                checkpoints.mark()
            evaluating = state.step == plan.steps or _due(recipe.eval_every, state.step, plan)
            state.rows += len(indices)
            state.tokens += int(features.lengths[indices].sum())
            entry = None
            # a GPU would wait for this look at the loss, a CPU has it already
            alone_on_cpu = accelerator.device.type == "cpu" and accelerator.num_processes == 1
            broken = alone_on_cpu and not math.isfinite(float(running))
            if state.step % batching.log_every == 0 or evaluating or broken:
                mean = float(accelerator.reduce(running.clone(), "mean")) / state.since
                entry = {
                    "step": state.step,
                    "epoch": round(plan.epoch(state.step), 4),
                    "loss": mean,
                    "learning_rate": learning_rate,
                    "grad_norm": None if norm is None else float(norm),
                }
                running.zero_()
                state.since = 0
                log(entry)
                if not math.isfinite(mean):
                    raise _diverged(mean, entry, features, indices)
            state.seconds += time.perf_counter() - began
            state.first_step = state.first_step or time.perf_counter()
            whole = not evaluating
            for listener in listeners:
                listener.on_step(state.step, entry)
            if evaluating:
                metrics = evaluate(bare)
                better = _better(task, metrics, state)
                log({"step": state.step, "epoch": round(plan.epoch(state.step), 4), "evaluation": metrics})
                state.waited += 1
                if better:
                    state.best_step, state.waited = state.step, 0
                    if checkpoints is not None:
                        checkpoints.keep_best(bare, state)
                whole = True
                answers = [listener.on_evaluate(state.step, metrics, better) for listener in listeners]
                # the main process decides for all
                if broadcast_object_list([any(answers)])[0] or state.waited >= (recipe.patience or math.inf):
                    break
                model.train()
            if checkpoints is not None and checkpoints.due(state.step):
                checkpoints.mark()  # an evaluation of the user's may have drawn, too
                state.running = float(running)
                if math.isfinite(state.running):  # what has gone wrong is not worth keeping
                    checkpoints.save(bare, optimizer, scheduler, state)
                if checkpoints.stopped_by is not None:
                    raise Interrupted(checkpoints.stopped_by, state.step)
    except KeyboardInterrupt:  # of a notebook's cell
        if whole and state.step and checkpoints is not None and accelerator.num_processes == 1:
            state.running = float(running)
            checkpoints.save(bare, optimizer, scheduler, state)
            checkpoints.say(f"interrupted: the state after step {state.step} is saved")
        raise
    finally:
        stack.close()
        for listener in listeners:
            listener.on_end()
    return state


def _backward(
    model: Any,
    adapter: Adapter,
    features: Features,
    indices: Any,
    micro: Sequence[Any],
    pad: int,
    accelerator: Any,
    width: int | None,
) -> torch.Tensor:
    """Gradients of the global batch's mean loss; gives this process's share of that loss."""
    total = max(float(features.weights[indices].sum()), 1e-12)
    mean = torch.zeros((), device=accelerator.device)
    for k, part in enumerate(micro):
        with accelerator.no_sync(model) if k < len(micro) - 1 else nullcontext():
            rows = part if len(part) else indices[:1]
            loss = _loss(model, adapter, features, rows, pad, accelerator.device, width)
            # gradients are averaged over processes, the loss over the weights of the global batch
            loss = loss * (accelerator.num_processes * bool(len(part)) / total)
            accelerator.backward(loss)
        mean += loss.detach()
    return mean


def _loss(
    model: Any,
    adapter: Adapter,
    features: Features,
    part: Any,
    pad: int,
    device: torch.device,
    width: int | None,
) -> torch.Tensor:
    """The micro-batch's weighted losses, summed."""
    inputs, values = batches.collate(features, part, pad, device, width)
    with padding_free.known_lengths(features.lengths[part].tolist()):
        logits = adapter.logits(model(**inputs))
    loss = adapter.loss(logits, values)
    # a user's own loss may be the mean over the micro-batch
    return loss.sum() if loss.dim() else loss * float(features.weights[part].sum())


def _diverged(loss: float, entry: dict[str, Any], features: Features, indices: Any) -> InputError:
    rows = ", ".join(str(row) for row in indices[:8].tolist())
    return InputError(
        f"the loss is {loss} (learning rate {entry['learning_rate']:.2e}, gradient norm "
        f"{entry['grad_norm']}); "
        f"the last batch had the training features {rows}, ...",
        where=f"step {entry['step']}",
        remedy='a smaller learning rate, a longer warmup or precision = "fp32" may help; the last good '
        "checkpoint stays",
    )


def _due(every: str | int, step: int, plan: batches.Plan) -> bool:
    return step % (plan.steps_per_epoch if isinstance(every, str) else every) == 0


def _better(task: Task, metrics: Metrics, state: State) -> bool:
    """Whether this evaluation is the best so far; an undefined metric (nan) never is, unless it is the only
    one."""
    name, metric = task.best_metric
    if metric not in metrics[name]:
        raise InputError(
            f"'{metric}' is not among the metrics",
            where="metric.best",
            remedy=did_you_mean(metric, metrics[name]),
        )
    value = metrics[name][metric]
    if metric in LOWER_IS_BETTER:
        value = -value
    if state.best is not None and not (value > state.best or math.isnan(state.best)):
        return False
    state.best = value
    return True
