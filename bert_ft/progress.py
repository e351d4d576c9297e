"""How far long work has come, told by who does it to whoever shows it; without one, to nobody."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import TypeVar

T = TypeVar("T")
Watcher = Callable[[int, str], AbstractContextManager[Callable[[int], None]]]
"""Takes how many there are, and of what: "texts tokenized"; within its context, how many more are done."""

MANY = 20_000  # below which nobody waits long enough to wonder
_watcher: ContextVar[Watcher | None] = ContextVar("watcher", default=None)


@contextmanager
def watched_by(watcher: Watcher | None) -> Iterator[None]:
    """Work inside is told to `watcher`; None: to nobody."""
    token = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(token)


def told(parts: Iterable[T], total: int, unit: str, count: Callable[[T], int]) -> Iterator[T]:
    """The parts of some work as they are; each is told when the next one is asked for.

    Args:
        total, unit: how many there are in all parts, and of what.
        count: how many a part has.
    """
    watcher = _watcher.get()
    if watcher is None or total < MANY:
        yield from parts
        return
    with watcher(total, unit) as advance:
        for part in parts:
            yield part
            advance(count(part))
