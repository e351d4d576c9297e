"""What a task can say of named entities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field

from bert_ft.config import schema

METRICS = ("f1", "precision", "recall", "accuracy")


class Options(schema.Options):
    """How the ner family reads, trains and decodes."""

    table: ClassVar[str] = "ner"

    scheme: Literal["auto", "IO", "IOB1", "IOB2", "IOE1", "IOE2", "BIOES", "BILOU"] = Field(
        "auto", description="of the files' tags"
    )
    spelling: (
        Literal[
            "PREFIX-TYPE",
            "PREFIX_TYPE",
            "PREFIX:TYPE",
            "PREFIX/TYPE",
            "PREFIX.TYPE",
            "PREFIXTYPE",
            "TYPE-PREFIX",
            "TYPE_PREFIX",
            "TYPE:PREFIX",
            "TYPE/PREFIX",
            "TYPE.PREFIX",
            "TYPE",
        ]
        | None
    ) = Field(None, description="of the files' tags: B-PER is PREFIX-TYPE; found out where it is plain")
    label_all_tokens: bool = Field(False, description="learn every sub-token of a word, not the first alone")
    context: Literal["sentence", "document"] = Field(
        "sentence", description="document: neighbours fill the window"
    )
    stride: int = Field(
        32, ge=0, description="tokens that two windows of a sentence share, at least; up to half a window"
    )
    decoding: Literal["argmax", "viterbi"] = Field("argmax", description="viterbi: valid tag sequences only")

    @classmethod
    def default_metrics(cls, problem_type: str) -> list[str]:
        return list(METRICS)

    def metric_names(self, problem_type: str) -> Sequence[str]:
        return METRICS
