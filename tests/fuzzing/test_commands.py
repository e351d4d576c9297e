"""The judge of commands that are given mutants; `python -m tests.fuzzing.commands --number 200` has tried them."""

from __future__ import annotations

import pytest

from tests.fuzzing.commands import Ended


@pytest.mark.parametrize(("ended", "fault"), [
    (Ended(0, "a table", "", 1, 500), ""), (Ended(2, "", "bert-ft: no such file\n  remedy\n", 1, 500), ""),
    (Ended(2, "1 fault", "", 1, 500), ""), (Ended(1, "", "bert-ft: KeyError: x\n", 1, 500), "exit code 1"),
    (Ended(2, "", "", 1, 500), "without a word"), (Ended(-9, "", "", 30, 500), "more than"),
    (Ended(2, "", "Traceback (most recent call last):\n", 1, 500), "a traceback"),
    (Ended(2, "", "bert-ft: a\x1b]0;x\x07\n", 1, 500), "control character"), (Ended(0, "", "", 1, 2500), "2500 MB"),
    (Ended(2, "", "bert-ft: a\nbert-ft: b\n", 1, 500), "2 messages"),
])  # fmt: skip
def test_what_is_a_fault_of_a_command(ended: Ended, fault: str) -> None:
    assert (fault in ended.fault(400)) if fault else not ended.fault(400)
