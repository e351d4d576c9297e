"""What a person should know of questions and answers before a training, or before a score is believed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pac

from bert_ft.data.checks.columns import encode, mask_of, plain
from bert_ft.data.checks.findings import at
from bert_ft.data.finding import KEPT, Finding
from bert_ft.data.rows import Rows
from bert_ft.families.qa.options import Options
from bert_ft.metrics import OF_BENCHMARKS

HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
UNSPACED = "\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff"
"""Scripts beside Han that are written without spaces: Thai, Lao, Tibetan, Burmese, Khmer, kana."""


# --- before anything is tokenized


def of_rows(sets: Mapping[str, Rows], metrics: Sequence[str], options: Options) -> Iterator[Finding]:
    """Answers whose F1 says nothing, and rows whose context is trained on."""
    for name, rows in sets.items():
        if name != "train" or len(sets) == 1:
            yield from _without_spaces(name, rows, metrics, options)
    if "train" in sets:
        yield from _shared_contexts(sets)


def _without_spaces(name: str, rows: Rows, metrics: Sequence[str], options: Options) -> Iterator[Finding]:
    """SQuAD's F1 has one word for a text without white space."""
    if set(OF_BENCHMARKS) & set(metrics) or not {"f1", "best_f1"} & set(metrics):
        return
    texts = pac.utf8_trim_whitespace(plain(pac.list_flatten(rows.table["answers"].combine_chunks())))
    one_word = pac.invert(pac.match_substring_regex(texts, r"\s"))
    mask = mask_of(pac.and_(one_word, pac.match_substring_regex(texts, f"[{HAN}{UNSPACED}]")))
    if 2 * mask.sum() <= len(texts):
        return
    others = mask_of(pac.match_substring_regex(texts, f"[{UNSPACED}]"))
    metric = "drcd" if 10 * others.sum() > len(texts) else "cmrc"
    remedy = f'; --set \'metric.compute=["{metric}_f1", "{metric}_exact_match"]\''
    if options.no_answer:  # these metrics know no threshold
        remedy = ", so go by exact_match"
    message = f"answers have no white space: f1 is exact_match here{remedy}"
    examples = pac.filter(texts, pa.array(mask)).slice(0, KEPT).to_pylist()
    yield Finding("spaces", "warning", name, int(mask.sum()), message, examples)


def _shared_contexts(sets: Mapping[str, Rows]) -> Iterator[Finding]:
    """Rows whose context stands in train too, beside those that are there with their question."""
    columns = {name: plain(rows.table["context"]) for name, rows in sets.items()}
    contexts = dict(zip(sets, encode(list(columns.values())), strict=True))
    separator = pa.scalar("\x1f", pa.large_string())
    both = [
        pac.binary_join_element_wise(columns[name], plain(rows.table["question"]), separator)
        for name, rows in sets.items()
    ]
    whole = dict(zip(sets, encode(both), strict=True))
    for name, rows in sets.items():
        if name == "train":
            continue
        shared = np.isin(contexts[name], contexts["train"]) & ~np.isin(whole[name], whole["train"])
        if rows.where == sets["train"].where:
            remedy = "--set group=context"
        else:
            remedy = "to hold out whole contexts, give all rows as --train and a share as --validation 10%"
        message = f"rows whose context stands in train too: {remedy}"
        yield from at("contexts", "warning", name, rows, shared, message, ("question", "context"))


# --- with a tokenizer


def of_lengths(
    name: str, needed: np.ndarray, ids: pa.ChunkedArray, options: Options, length: int
) -> list[Finding]:
    """Questions that no prediction can answer right.

    Args:
        needed: (N,) as `encoding.encode` has it, of each question.
        length: `recipe.max_length`.
    """
    limit = options.max_answer_length
    long = needed > limit
    what = f"only answers longer than max_answer_length = {limit}: they can't be answered right"
    remedy = f"--set qa.max_answer_length={_rounded(needed.max(initial=0), 8)}"
    cut = needed < 0
    return [
        *_finding(name, long, needed, ids, f"{what}; {remedy}"),
        *_finding(
            name, cut, needed, ids,
            f"only answers that are whole in no window of max_length = {length} tokens: they can't be "
            f"answered right; {_longer(needed[cut], options)}",
        ),
    ]  # fmt: skip


def of_training(
    name: str, unlearned: np.ndarray, needed: np.ndarray, ids: pa.ChunkedArray, options: Options, length: int
) -> list[Finding]:
    """Questions to train on whose answer no window has whole: each is trained as one without an answer."""
    message = (
        f"an answer that is whole in no window of max_length = {length} tokens: it is not learned; "
        f"{_longer(needed[unlearned], options)}"
    )
    return list(_finding(name, unlearned, needed, ids, message))


def _finding(
    name: str, mask: np.ndarray, needed: np.ndarray, ids: pa.ChunkedArray, message: str
) -> Iterator[Finding]:
    if count := int(mask.sum()):
        first = np.flatnonzero(mask)[:KEPT].tolist()
        examples = [f"question '{ids[i]}': {abs(int(needed[i])):,} tokens" for i in first]
        verb = "has" if count == 1 else "have"
        yield Finding(
            "lengths", "warning", name, count, f"of {len(mask):,} questions {verb} {message}", examples
        )


def _longer(needed: np.ndarray, options: Options) -> str:
    """The settings at which answers of so many tokens fit a window, and may be predicted."""
    longest = int(np.abs(needed).max(initial=0))
    keys = f"--set max_length={_rounded(longest + options.max_query_length + 4, 32)}"
    if longest > options.max_answer_length:
        keys += f" --set qa.max_answer_length={_rounded(longest, 8)}"
    return f"{keys}, where the checkpoint reads so many tokens"


def _rounded(number: int, to: int) -> int:
    return -(-int(number) // to) * to
