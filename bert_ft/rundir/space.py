"""How much of the disk a run takes, and whether there is so much."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from bert_ft.config.recipe import Recipe
from bert_ft.errors import InputError

REMEDY = "free some of it, or choose a folder on another disk with --output DIR"


@dataclass(frozen=True)
class Space:
    """Bytes that a run writes.

    Attributes:
        training: at most, while it trains.
        surely: even if it trains for too short a time to save its state: best weights, model, predictions.
        after: what stays of the model.
    """

    training: float
    surely: float
    after: float

    @classmethod
    def of(
        cls,
        parts: Sequence[Mapping[str, Any]],
        scored: Iterable[pa.Table],
        labels: int,
        recipe: Recipe,
        keeps_model: bool,
    ) -> Space:
        """The space for a run.

        Args:
            parts: of the network, as `engine.optimization.table` has them; four bytes a parameter.
            scored: the rows of the sets that are predicted. labels: how many there are.
        """
        size, trained = (4 * sum(part[key] for part in parts) for key in ("parameters", "trained"))
        after = (trained if recipe.saves_adapter else size) if keeps_model else 0
        # an answer with up to a hundred probabilities a row, and the row itself
        predictions = sum(table.nbytes + 50 * len(table) * min(labels, 100) for table in scored)
        # two checkpoints with Adam's averages, and best weights beside each
        most = 4 * (size + trained) + after + predictions
        return cls(most, after + (size if recipe.keep == "best" else 0) + predictions, after)

    def told(self, folder: Path, checked: bool) -> Iterator[str]:
        """What a person is told before the training; a second line of a disk that may be too small.

        Raises:
            InputError: it is too small, whatever happens.
        """
        yield f"disk: up to {_mb(self.training)} while training, {_mb(self.after)} after"
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        free = float("inf")
        with suppress(OSError):  # a file system that does not say
            free = shutil.disk_usage(folder).free
        if checked and free < self.surely:
            message = f"this disk has {_mb(free)} left, and the run writes {_mb(self.surely)} or more"
            raise InputError(message, where=str(folder), remedy=REMEDY)
        if checked and free < self.training:
            yield (
                f"this disk has {_mb(free)} left, and the checkpoints of a long training can take "
                f"{_mb(self.training)}: {REMEDY}"
            )


def _mb(size: float) -> str:
    return f"{size / 2**20:,.0f} MB"
