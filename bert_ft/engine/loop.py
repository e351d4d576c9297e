"""The training loop: global batches in, a trained model out. Reads top to bottom; every speed trick lives
elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from typing import Any, Protocol

import torch
from accelerate.utils import broadcast_object_list

from bert_ft.config.task import Task
from bert_ft.engine import batches, lean, losses, optimization, precision, surroundings
from bert_ft.engine.averaging import Average
from bert_ft.engine.callbacks import Callback, Metrics
from bert_ft.engine.checkpoints import Checkpoints, Interrupted, State
from bert_ft.engine.sharing import ANY, Sharing
from bert_ft.errors import InputError, did_you_mean
from bert_ft.families.base import Adapter
from bert_ft.families.features import Features
from bert_ft.kernels import cpu, padding_free
from bert_ft.metrics import LOWER_IS_BETTER


class Trainable(Protocol):
    """What is trained: a network with its head, the adapter that reads its logits, and where it runs."""

    network: Any
    adapter: Adapter
    tokenizer: Any
    accelerator: Any
    sharing: Sharing | None


def train(
    model: Trainable,
    features: Features,
    *,
    evaluate: Callable[[], Metrics],
    log: Callable[[dict[str, Any]], None],
    checkpoints: Checkpoints | None = None,
    callbacks: Sequence[Callback] = (),
    loss: losses.Loss | None = None,
) -> State:
    """Trains a model in place by its task's recipe.

    Args:
        features: the training rows.
        evaluate: returns the metrics of every evaluation set, for the weights as they are.
        log: takes a line of the log.
        checkpoints: saves and restores the training's state, and keeps the best weights; None: nothing is
            kept.
        loss: in place of the adapter's: the losses of a micro-batch's rows (B,), or their mean.
    Raises:
        Interrupted: after a signal, once the state is saved.
        InputError: the loss is no longer a number.
    """
    return _Training(model, features, evaluate, log, checkpoints, callbacks, loss).run()


class _Training:
    """What the steps of one training share.

    Attributes:
        network, wrapped: the bare network, and as `accelerate` wraps it for several processes.
        average: that of the weights, where the recipe has one: evaluated, kept, and what is left at the end.
        running: the sum of this process's losses since the last line of the log.
        whole: whether `state` is that of the weights, with nothing left to do for its step.
    """

    def __init__(
        self,
        model: Trainable,
        features: Features,
        evaluate: Callable[[], Metrics],
        log: Callable[[dict[str, Any]], None],
        checkpoints: Checkpoints | None,
        callbacks: Sequence[Callback],
        loss: losses.Loss | None,
    ) -> None:
        self.adapter = model.adapter
        self.task = model.adapter.task
        self.features = features
        self.evaluate = evaluate
        self.log = log
        self.checkpoints = checkpoints
        self.loss = losses.checked(loss) if loss else model.adapter.loss
        sharing = model.sharing or ANY
        self.pad = model.tokenizer.pad_token_id
        self.width = sharing.width
        self.accelerator = model.accelerator
        self.device = model.accelerator.device
        recipe = self.task.recipe
        batching = self.task.batching
        lengths = features.lengths if batching.order == "length" else None
        self.plan = batches.Plan.of(recipe, len(features), self.task.run.seed, lengths)
        self.keys = sharing.keys(features, batching.equal_lengths)
        optimizer = optimization.optimizer(model.network, recipe)
        self.scheduler = optimization.schedule(optimizer, recipe, self.plan.steps)
        self.network = model.network
        self.wrapped, self.optimizer = surroundings.prepare(self.accelerator, model.network, optimizer)
        self.average = None if recipe.ema is None else Average(model.network, recipe.ema)
        self.state = (
            State()
            if checkpoints is None
            else checkpoints.restore(self.network, self.optimizer, self.scheduler, self.average)
        )
        self.state.micro_batches = max(self.state.micro_batches, batching.gradient_accumulation_steps)
        self.listeners = list(callbacks) if self.accelerator.is_main_process else []
        self.running = torch.tensor(self.state.running, dtype=torch.float32, device=self.device)
        self.lean: cpu.Lean | None = None
        self.whole = True

    def run(self) -> State:
        """Trains to the end; returns how far it came."""
        for listener in self.listeners:
            listener.on_start(self.plan, self.features)
        if self.checkpoints is not None:
            self.checkpoints.mark()
        stack = ExitStack()
        try:
            bare = self.optimizer.optimizer
            cheaper = lean.steps(self.network, bare, self.task, self.accelerator, self.plan.steps, self.log)
            self.lean = stack.enter_context(cheaper)
            self.wrapped.train()
            for step, indices in self.plan.batches(self.state.step):
                if self._step(step, indices) and self._evaluated_enough():
                    break
                self._save_if_due()
        except KeyboardInterrupt:  # of a notebook's cell
            self._save_interrupted()
            raise
        finally:
            stack.close()
            for listener in self.listeners:
                listener.on_end()
        if self.average is not None:
            self.average.exchange()
        return self.state

    def _step(self, step: int, indices: Any) -> bool:
        """One optimizer step on the rows of a global batch; returns whether an evaluation is due."""
        state = self.state
        began = time.perf_counter()
        loss = self._gradients(step, indices)
        self.whole = False
        self.running += loss
        norm = self._clip()
        learning_rate = self.scheduler.get_last_lr()[0]
        self.optimizer.step()
        self.scheduler.step()
        self.optimizer.zero_grad()
        if self.average is not None:
            self.average.update()
        state.since += 1
        state.step = step + 1
        if self.checkpoints is not None:
            self.checkpoints.mark()
        evaluating = state.step == self.plan.steps or _due(self.task.recipe.eval_every, state.step, self.plan)
        state.rows += len(indices)
        state.tokens += int(self.features.lengths[indices].sum())
        entry = self._entry(indices, learning_rate, norm, evaluating)
        state.seconds += time.perf_counter() - began
        state.first_step = state.first_step or time.perf_counter()
        self.whole = not evaluating
        for listener in self.listeners:
            listener.on_step(state.step, entry)
        return evaluating

    def _gradients(self, step: int, indices: Any) -> torch.Tensor:
        """Computes the global batch's gradients, in more parts where memory runs out; returns its loss."""
        state = self.state
        accelerator = self.accelerator
        while True:
            try:
                micro = batches.divide(
                    indices,
                    accelerator.num_processes,
                    accelerator.process_index,
                    state.micro_batches,
                    self.keys,
                )
                return self._backward(indices, micro)
            except torch.OutOfMemoryError:
                self.optimizer.zero_grad()
                if accelerator.num_processes > 1 or state.micro_batches >= len(indices):
                    raise
                state.micro_batches *= 2
                torch.cuda.empty_cache()
                message = f"each batch is computed in {state.micro_batches} parts from here on"
                self.log({"step": step, "out_of_memory": message})

    def _backward(self, indices: Any, micro: Sequence[Any]) -> torch.Tensor:
        """Gradients of the global batch's mean loss; returns this process's share of that loss."""
        total = max(float(self.features.weights[indices].sum()), 1e-12)
        mean = torch.zeros((), dtype=torch.float32, device=self.device)
        for k, part in enumerate(micro):
            with self.accelerator.no_sync(self.wrapped) if k < len(micro) - 1 else nullcontext():
                loss = self._loss(part if len(part) else indices[:1])
                # gradients are averaged over processes, the loss over the weights of the global batch
                loss = loss * (self.accelerator.num_processes * bool(len(part)) / total)
                self.accelerator.backward(loss)
            mean += loss.detach()
        return mean

    def _loss(self, part: Any) -> torch.Tensor:
        """The micro-batch's weighted losses, summed."""
        inputs, values = batches.collate(self.features, part, self.pad, self.device, self.width)
        with padding_free.known_lengths(self.features.lengths[part].tolist()):
            logits = self.adapter.logits(precision.outputs(self.wrapped, inputs, self.accelerator))
        loss = self.loss(logits, values)
        # a user's own loss may be the mean over the micro-batch
        return loss.sum() if loss.dim() else loss * float(self.features.weights[part].sum())

    def _clip(self) -> torch.Tensor | None:
        """Clips the gradients; returns their norm before, None where the recipe does not clip."""
        most = self.task.recipe.max_grad_norm
        if most <= 0:
            return None
        if self.lean is not None and not self.accelerator.is_fsdp2:
            return self.lean.clip(self.optimizer.optimizer, self.network.parameters(), most)
        norm: Any = self.accelerator.clip_grad_norm_(self.wrapped.parameters(), most)
        # FSDP's is sharded
        whole: torch.Tensor = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
        return whole

    def _entry(
        self, indices: Any, learning_rate: float, norm: torch.Tensor | None, evaluating: bool
    ) -> dict[str, Any] | None:
        """Logs the mean loss since the last line, where one is due, and returns the line."""
        state = self.state
        # a GPU would wait for this look at the loss, a CPU has it already
        alone_on_cpu = self.device.type == "cpu" and self.accelerator.num_processes == 1
        broken = alone_on_cpu and not math.isfinite(float(self.running))
        if not (state.step % self.task.batching.log_every == 0 or evaluating or broken):
            return None
        mean = float(self.accelerator.reduce(self.running.clone(), "mean")) / state.since
        entry = {
            "step": state.step,
            "epoch": round(self.plan.epoch(state.step), 4),
            "loss": mean,
            "learning_rate": learning_rate,
            "grad_norm": None if norm is None else float(norm),
        }
        self.running.zero_()
        state.since = 0
        self.log(entry)
        if not math.isfinite(mean):
            raise _diverged(mean, entry, self.features, indices)
        return entry

    def _evaluated_enough(self) -> bool:
        """Evaluates, keeps the best weights; returns whether the training ends here."""
        with nullcontext() if self.average is None else self.average.inside():
            return self._evaluate()

    def _evaluate(self) -> bool:
        state = self.state
        metrics = self.evaluate()
        better = _better(self.task, metrics, state)
        self.log({"step": state.step, "epoch": round(self.plan.epoch(state.step), 4), "evaluation": metrics})
        state.waited += 1
        if better:
            state.best_step = state.step
            state.waited = 0
            if self.checkpoints is not None:
                self.checkpoints.keep_best(self.network, state)
        self.whole = True
        answers = [listener.on_evaluate(state.step, metrics, better) for listener in self.listeners]
        # the main process decides for all
        patience = self.task.recipe.patience or math.inf
        if broadcast_object_list([any(answers)])[0] or state.waited >= patience:
            return True
        self.wrapped.train()
        return False

    def _save_if_due(self) -> None:
        """Saves the state where that is due, and leaves after a signal."""
        checkpoints = self.checkpoints
        state = self.state
        if checkpoints is None or not checkpoints.due(state.step):
            return
        checkpoints.mark()  # an evaluation of the user's may have drawn, too
        state.running = float(self.running)
        if math.isfinite(state.running):  # what has gone wrong is not worth keeping
            checkpoints.save(self.network, self.optimizer, self.scheduler, state, self.average)
        if checkpoints.stopped_by is not None:
            raise Interrupted(checkpoints.stopped_by, state.step)

    def _save_interrupted(self) -> None:
        """Saves the state of a training that a person broke off, unless it is amid a step."""
        checkpoints = self.checkpoints
        state = self.state
        if checkpoints is None or not (self.whole and state.step and self.accelerator.num_processes == 1):
            return
        state.running = float(self.running)
        checkpoints.save(self.network, self.optimizer, self.scheduler, state, self.average)
        checkpoints.say(f"interrupted: the state after step {state.step} is saved")


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
