"""What a task can say of extractive question answering."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field

from bert_ft.config import schema
from bert_ft.metrics import OF_BENCHMARKS

ALL_ANSWERED = ("f1", "exact_match", *OF_BENCHMARKS)
"""Metrics where each question has an answer."""
SOME_UNANSWERABLE = ("f1", "exact_match", "best_f1", "best_exact")
"""Metrics where some questions have none."""


class Options(schema.Options):
    """How the qa family reads, windows and decodes."""

    table: ClassVar[str] = "qa"
    usual_length: ClassVar[int | None] = 384

    doc_stride: int = Field(128, gt=0, description="tokens from one window's start to the next's")
    max_query_length: int = Field(
        64, gt=0, description="tokens of the question; the rest is truncated, and counted"
    )
    max_answer_length: int = Field(30, gt=0, description="tokens")
    n_best: int = Field(20, gt=0, description="start and end positions considered a window, and answers kept")
    no_answer: bool = Field(
        False, description="questions may have no answer (SQuAD 2.0): null scores and a threshold"
    )

    @classmethod
    def default_metrics(cls, problem_type: str) -> list[str]:
        return ["f1", "exact_match"]

    def metric_names(self, problem_type: str) -> Sequence[str]:
        return SOME_UNANSWERABLE if self.no_answer else ALL_ANSWERED
