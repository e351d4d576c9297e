"""Many files, answered by the workers of a Ray cluster, each with one model that is loaded once.

A worker has one file at a time, so that memory does not grow with their number. One that dies is replaced,
and its file is answered again: nothing of it can be seen before it is whole.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from bert_ft.errors import BertFtError, InputError, MachineError
from bert_ft.jobs import ray as cluster
from bert_ft.jobs.local import environment
from bert_ft.tools.predict.files import Options
from bert_ft.tools.predict.folders import Item, Plan
from bert_ft.tools.predict.identity import made_by as identity
from bert_ft.tools.predict.many import PAUSE, Answering, Result, Summary, look_at_end
from bert_ft.tools.predict.progress import FilesProgress
from bert_ft.tools.predict.records import Records

TRIES = 3  # of a file whose worker dies


@dataclass(frozen=True)
class Work:
    """What a worker is told.

    Attributes:
        load: the arguments of `run.load`. made_by: what the answers are to be made with.
        how: as of `identity.made_by`.
        place: the working directory, which relative paths start from.
    """

    load: dict[str, Any]
    output: Path
    made_by: dict[str, Any]
    how: dict[str, Any]
    options: Options
    place: str


class Worker:
    """A process of the cluster that answers files, one after the other."""

    def __init__(self, work: Work) -> None:
        self.work = work

    @cached_property
    def answering(self) -> Answering:
        """The model that answers.

        Raises:
            InputError: this node has not what the command named, or something else of this name.
        """
        from bert_ft import imports
        from bert_ft import run as runs

        work = self.work
        try:
            os.chdir(work.place)
        except OSError:
            if not work.output.is_absolute():
                raise InputError(
                    "this folder is not on every node of the cluster",
                    where=work.place,
                    remedy="give absolute paths of a file system that all nodes have",
                ) from None
        imports.libraries()
        loaded = runs.load(**work.load)
        model = getattr(loaded, "model", loaded)
        if identity(model, work.options, work.how) != work.made_by:
            raise InputError(
                "a node of the cluster has another model under this name",
                where=str(work.load["folder"]),
                remedy="name one on a file system that all nodes have",
            )
        return Answering(model, work.output, work.made_by, work.options)

    def ready(self) -> int:
        """Returns the process's id once the model is loaded."""
        assert self.answering
        return os.getpid()

    def answer(self, item: Item) -> Result:
        """As `Answering.answer`."""
        return self.answering.answer(item)


def answer_all(
    address: str,
    plan: Plan,
    work: Work,
    workers: int | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> Summary:
    """As `many.answer_all`, by workers of a cluster.

    Args:
        address: "ray" or "ray://HOST:PORT".
        workers: how many at most; by default one for each GPU of the cluster, or for each CPU where there is
            none.
        tell: takes each line that there is to tell; those of a file once it is done.
    Raises:
        InputError: no cluster; a model or a folder that its nodes don't have.
        MachineError: answers can't be written.
    """
    if plan.others:
        tell(plan.left_alone)
    with cluster.connect(address) as ray, FilesProgress(plan.items, work.options.get("read_as")) as progress:
        has = ray.cluster_resources()
        gpus = int(has.get("GPU", 0))
        count = min(workers or gpus or max(1, int(has.get("CPU", 1))), len(plan.items))
        remote = ray.remote(
            num_cpus=1,
            num_gpus=1 if gpus else 0,
            max_restarts=-1,
            max_task_retries=TRIES - 1,
            runtime_env={"env_vars": _variables()},
        )(Worker)
        actors = [remote.remote(work) for _ in range(count)]
        try:
            summary = _Pool(ray, actors, tell, progress).answer(plan.items)
        finally:
            for actor in actors:
                ray.kill(actor)
    look_at_end(Records(work.output, work.made_by), plan, summary, tell)
    return summary


class _Pool:
    """Workers, and what each of them has to do now."""

    def __init__(
        self, ray: Any, actors: list[Any], tell: Callable[[str], None], progress: FilesProgress
    ) -> None:
        self.ray, self.tell, self.progress = ray, tell, progress
        # a cluster may have no room for all of them: one gets files once it is there
        self.busy: dict[Any, tuple[Any, Item | None]] = {
            actor.ready.remote(): (actor, None) for actor in actors
        }

    def answer(self, items: list[Item]) -> Summary:
        """Hands out files until all are answered."""
        summary, waiting = Summary(), deque(items)
        held: list[Item] = []  # by another command: what they become is looked at when nothing else is left
        free: list[Any] = []
        while summary.counts.total() < len(items):
            while waiting and free:
                actor, item = free.pop(), waiting.popleft()
                self.busy[actor.answer.remote(item)] = actor, item
            if held and not waiting and not any(item for _, item in self.busy.values()):
                time.sleep(PAUSE)
                waiting, held = deque(held), []
                continue
            done, _ = self.ray.wait(list(self.busy), num_returns=1, timeout=PAUSE)
            for reference in done:
                actor, asked = self.busy.pop(reference)
                free.append(actor)
                if asked is None:
                    self._begin(reference)
                    continue
                result = self._result(reference, asked)
                if result.state == "held":
                    held.append(result.item)
                else:
                    summary.add(result, self.tell)
                    self.progress.advance(result.rows if result.state == "answered" else 0, 0)
                    self.progress.ended_with(result.item, result.state == "answered")
        return summary

    def _begin(self, reference: Any) -> None:
        """A worker has come up, or could not."""
        try:
            self._value(reference)
        except self.ray.exceptions.RayActorError as error:
            cause = " ".join(str(error).split())
            remedy = "every node needs bert-ft, in the versions of this machine"
            raise MachineError(f"workers can't start: {cause}", remedy=remedy) from None

    def _result(self, reference: Any, item: Item) -> Result:
        try:
            result: Result = self._value(reference)
            return result
        except self.ray.exceptions.RayActorError as error:
            cause = " ".join(str(error).split())
            return Result(item, "failed", told=[f"{item.source}: its worker died {TRIES} times: {cause}"])

    def _value(self, reference: Any) -> Any:
        """What a worker returned, or raised."""
        try:
            return self.ray.get(reference)
        except self.ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, BertFtError):
                raise error.cause from None
            raise MachineError(f"a worker failed: {error.cause!r}") from None


def _variables() -> dict[str, str]:
    """Where workers find this very bert-ft, where it is no installed one."""
    ours = environment(None)
    return {key: ours[key] for key in ("PYTHONPATH", "PYTHONSAFEPATH") if ours.get(key)}
