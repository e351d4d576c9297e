"""Question answering: n-best answers from logits, windows from texts, and the memory evaluation takes. Interleaved.

    python benchmarks/answers.py --data ../shared/data --checkpoint .demo/all-MiniLM-L6-v2

The usual way is that of transformers' run_qa: its postprocess_qa_predictions, rewritten here step by step, on a
`datasets.Dataset` of features, and the tokenizer's own call with overflowing tokens and offsets. The logits are random
but like those of a trained model: a peak at a gold answer, noise in the context, little elsewhere. Both ways get the
same windows and must give the same n best answers (the max-context rule, which run_qa does not apply, is off for this).
Prints a Markdown table of medians and ratios (usual way / ours); `--output FILE` also writes it.
"""

from __future__ import annotations

import argparse
import collections
import gc
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from memory import peak_mb

LENGTH = 384


def read(data: Path, n: int | None) -> tuple[Any, Any]:
    """(adapter, the first n questions of SQuAD 1.1's development set)."""
    import bert_ft
    from bert_ft.data.loading import load

    file = str(data / "squad" / "dev-v1.1.json")
    task = bert_ft.load_task("qa").override(
        {"data.train": file, "data.evaluate": file, "recipe.max_length": LENGTH}
    )
    adapter = bert_ft.ExtractiveQa(task)
    rows = load(task, bert_ft.ExtractiveQa, training=False).train
    return adapter, rows.part(0, len(rows) if n is None else n)


def logits_of(features: Any, seed: int = 0) -> np.ndarray:
    """(T, 2): what a trained model could say of these windows."""
    draw = np.random.default_rng(seed)
    inside = features.places["begin"] < features.places["end"]
    logits = draw.normal(0, 2, (int(features.offsets[-1]), 2)) - np.where(inside, 0, 30)[:, None]
    for side, key in enumerate(("start_positions", "end_positions")):
        logits[features.offsets[:-1] + features.values[key], side] += draw.normal(6, 4, len(features))
    return logits.astype(np.float32)


def as_run_qa(features: Any, logits: np.ndarray, rows: Any) -> tuple[Any, Any, np.ndarray, np.ndarray]:
    """(examples, features, start logits, end logits), padded to 384 as run_qa has them."""
    import datasets

    ids = rows.table["id"].to_pylist()
    padded = np.full((len(features), LENGTH, 2), -100, np.float32)
    offsets = []
    for i, (a, b) in enumerate(zip(features.offsets[:-1], features.offsets[1:], strict=True)):
        padded[i, : b - a] = logits[a:b]
        places = zip(
            features.places["begin"][a:b].tolist(), features.places["end"][a:b].tolist(), strict=True
        )
        offsets.append([[p, q] if p < q else None for p, q in places] + [None] * (LENGTH - int(b - a)))
    example_id = [ids[row] for row in features.values["row"]]
    table = datasets.Dataset.from_dict({"example_id": example_id, "offset_mapping": offsets})
    return datasets.Dataset(rows.table), table, padded[..., 0].copy(), padded[..., 1].copy()


def postprocess(
    examples: Any, features: Any, starts: np.ndarray, ends: np.ndarray, n: int = 20, longest: int = 30
) -> Any:
    """Id -> its n best as [{"text", "probability"}, ...], as utils_qa.py computes them."""
    index = {key: i for i, key in enumerate(examples["id"])}
    of_example = collections.defaultdict(list)
    for i, feature in enumerate(features):
        of_example[index[feature["example_id"]]].append(i)
    out = {}
    for i, example in enumerate(examples):
        found = []
        for j in of_example[i]:
            start, end = starts[j], ends[j]
            offsets = features[j]["offset_mapping"]
            best_starts = np.argsort(start)[-1 : -n - 1 : -1].tolist()
            best_ends = np.argsort(end)[-1 : -n - 1 : -1].tolist()
            for a in best_starts:
                for b in best_ends:
                    if a >= len(offsets) or b >= len(offsets) or not offsets[a] or not offsets[b]:
                        continue
                    if b < a or b - a + 1 > longest:
                        continue
                    found.append({"offsets": (offsets[a][0], offsets[b][1]), "score": start[a] + end[b]})
        found = sorted(found, key=lambda item: item["score"], reverse=True)[:n]
        for item in found:
            p, q = item["offsets"]
            item["text"] = example["context"][p:q]
        if not found:
            found.append({"text": "empty", "score": 0.0})
        scores = np.array([item.pop("score") for item in found])
        exp = np.exp(scores - np.max(scores))
        for item, probability in zip(found, exp / exp.sum(), strict=True):
            item["probability"] = float(probability)
        out[example["id"]] = found
    return out


def timed(work: Callable[[], Any]) -> float:
    gc.collect()
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def pairs(name: str, usual: Callable[[], Any], ours: Callable[[], Any], rounds: int) -> str:
    """A table row: both medians and the median of the pairs' ratios."""
    both = [(timed(usual), timed(ours)) for _ in range(rounds)]
    ratios = [a / b for a, b in both]
    a, b = (statistics.median(times) for times in zip(*both, strict=True))
    return f"| {name} | {a:.3f} | {b:.3f} | {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) |"


def measure(data: Path, checkpoint: str, rounds: int, n: int | None) -> list[str]:
    from transformers import AutoTokenizer

    adapter, rows = read(data, n)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    features = adapter.encode(rows, tokenizer, LENGTH)
    features.values["low"][:], features.values["high"][:] = 0, LENGTH  # run_qa has no max-context rule
    logits = logits_of(features)
    usual = as_run_qa(features, logits, rows)

    def nbest() -> Any:
        return adapter.files(adapter.decode(logits, features, rows), rows)[".nbest"]

    theirs, mine = postprocess(*usual), nbest()
    assert theirs.keys() == mine.keys()
    for key, found in theirs.items():
        assert found[0]["text"] == mine[key][0]["text"], key
        assert np.allclose(
            [i["probability"] for i in found], [i["probability"] for i in mine[key]], atol=1e-6
        ), key
    questions, contexts = rows.table["question"].to_pylist(), rows.table["context"].to_pylist()

    def tokenized() -> Any:
        return tokenizer(questions, contexts, truncation="only_second", max_length=LENGTH, stride=128,
                         return_overflowing_tokens=True, return_offsets_mapping=True)  # fmt: skip

    many = f"{len(rows):,} questions"
    return [
        pairs(f"n-best answers with texts and probabilities, {many}", lambda: postprocess(*usual), nbest, rounds),
        pairs(f"best answers, {many}", lambda: postprocess(*usual), lambda: adapter.decode(logits, features, rows), rounds),
        pairs(f"windows, {many}: the tokenizer's own call / ours", tokenized,
              lambda: adapter.encode(rows, tokenizer, LENGTH), rounds),
    ]  # fmt: skip


def peak(data: Path, checkpoint: str, n: int) -> float:
    """Peak memory in MB of reading all questions and evaluating the first n with one random layer."""
    from transformers import AutoTokenizer, BertConfig, BertForQuestionAnswering

    from bert_ft.modeling import loading

    adapter, rows = read(data, None)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    config = BertConfig(vocab_size=len(tokenizer), hidden_size=64, num_hidden_layers=1, num_attention_heads=2,
                        intermediate_size=128)  # fmt: skip
    folder = Path(tempfile.mkdtemp())
    BertForQuestionAnswering(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    model = loading.load_folder(str(folder), adapter.task)
    part = rows.part(0, n)
    scores = model.score(model.infer(part), part)
    used = peak_mb()
    print(f"{n} questions: {used:.0f} MB, {scores}", file=sys.stderr)
    return used


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--questions", type=int, help="the first N alone: a quick trial")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--peak", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        print(peak(options.data, options.checkpoint, options.peak))
        return
    lines = ["| work | usual (s) | ours (s) | ratio |", "|---|---|---|---|"]
    lines += measure(options.data, options.checkpoint, options.rounds, options.questions)
    sizes = (2_000, 10_000) if options.questions is None else (options.questions // 5, options.questions)
    peaks = []
    for n in sizes:
        command = [
            sys.executable,
            __file__,
            "--data",
            str(options.data),
            "--checkpoint",
            options.checkpoint,
            "--peak",
            str(n),
        ]
        with tempfile.TemporaryDirectory() as cache:
            done = subprocess.run(
                command,
                check=True,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "BERT_FT_CACHE": cache},
            )
        peaks.append(float(done.stdout.strip().splitlines()[-1]))
    lines += ["", f"Peak memory of an evaluation: {peaks[0]:.0f} MB for {sizes[0]:,} questions, {peaks[1]:.0f} MB for "
              f"{sizes[1]:,} ({peaks[1] - peaks[0]:+.0f} MB)."]  # fmt: skip
    text = "\n".join([*lines, ""])
    print(text)
    if options.output:
        options.output.write_text(
            f"# Question answering, side by side\n\n`python benchmarks/answers.py`\n\n{text}"
        )


if __name__ == "__main__":
    main()
