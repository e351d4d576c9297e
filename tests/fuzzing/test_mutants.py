"""Whatever stands in a file, its reader returns or says what is wrong with it: no traceback, no hang."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.fuzzing import mutants
from tests.fuzzing.mutants import Reader


@pytest.fixture(scope="module")
def readers(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Reader]:
    work = tmp_path_factory.mktemp("mutants")
    return mutants.of_files() | mutants.of_run(mutants.tiny_run(work, str(tiny_checkpoint)), work)


def test_the_good_files_are_read(readers: dict[str, Reader]) -> None:
    for reader in readers.values():
        mutants.good(reader)


def test_mutants_are_read_or_refused(readers: dict[str, Reader]) -> None:
    """A few of each reader; `python -m tests.fuzzing.mutants --number 10000` has made more."""
    found = {name: mutants.fuzz(name, reader, range(12), seed=0) for name, reader in readers.items()}
    assert [fault for outcome in found.values() for fault in outcome.faults] == []
    assert sum(outcome.read for outcome in found.values()) > 100
    assert sum(outcome.refused for outcome in found.values()) > 100


@pytest.mark.slow
def test_many_mutants_are_read_or_refused(readers: dict[str, Reader]) -> None:
    found = [mutants.fuzz(name, reader, range(100), seed=1) for name, reader in readers.items()]
    assert [fault for outcome in found for fault in outcome.faults] == []


def test_a_reader_that_fails_is_found() -> None:
    """The judge itself: a traceback, a hang, an empty message."""
    from bert_ft.errors import InputError

    def fails(file: Path) -> None:
        raise KeyError(file.read_bytes()[:1])

    def hangs(file: Path) -> None:
        while True:
            pass

    def says_nothing(file: Path) -> None:
        raise InputError(" ")

    mutants.SECONDS, before = 0.2, mutants.SECONDS
    try:
        for read, said in ((fails, "KeyError"), (hangs, "TimeoutError"), (says_nothing, "empty message")):
            (fault,) = mutants.fuzz("x", Reader(read, {"a": b"some bytes"}), range(1), 0).faults
            assert said in fault
    finally:
        mutants.SECONDS = before


def test_a_mutant_is_said_by_its_number() -> None:
    content = b"a,b\n1,2\n" * 20
    drawn = [[mutants.mutated(content, np.random.default_rng([0, n])) for n in range(50)] for _ in range(2)]
    assert drawn[0] == drawn[1]
    assert len(set(drawn[0])) > 40
