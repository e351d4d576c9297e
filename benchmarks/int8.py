"""`bert-ft predict --int8` beside float32, torch's own dynamic quantization and the int8 graph: CPU seconds on 5,000 SST-2 rows, in turn, and whether an answer depends on the rows beside it.

    bert-ft train sst2 -c .demo/all-MiniLM-L6-v2 --data-dir ../shared/data/glue --limit-train 4000 --epochs 1 -o runs/sst2
    bert-ft export runs/sst2 --int8
    python benchmarks/int8.py --data ../shared/data --output benchmarks/results/int8.md runs/sst2

The first run answers, loaded in one process, with one thread, from JSONL to JSONL; more runs have the change of their metric told.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported

import argparse
import json
import statistics
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

ROWS, ALONE = 5000, 1000
PLAIN, OURS, TORCH, GRAPH = "float32", "int8 (`--int8`)", "int8 of torch.ao", "int8 graph (`--onnx --int8`)"


def load(way: str, run: Path) -> Any:
    import torch

    import bert_ft

    if way == GRAPH:
        return bert_ft.load(run, onnx="int8").model
    model = bert_ft.load(run, dtype="int8" if way == OURS else "float32").model
    if way == TORCH:
        warnings.simplefilter("ignore")
        torch.backends.quantized.engine = "onednn"
        kinds = {torch.nn.Linear}
        torch.ao.quantization.quantize_dynamic(model.network.base_model, kinds, torch.qint8, inplace=True)
    return model


def probabilities(answers: list[dict[str, Any]]) -> np.ndarray:
    return np.array([list(answer["probabilities"].values()) for answer in answers])


def speed(run: Path, texts: list[str], rounds: int) -> str:
    from bert_ft.tools.predict import files

    ways = [PLAIN, OURS, TORCH, *([GRAPH] if (run / "onnx").is_dir() else [])]
    models = {way: load(way, run) for way in ways}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    answers = {}
    with tempfile.TemporaryDirectory() as name:
        source, target = Path(name, "rows.jsonl"), Path(name, "answers.jsonl")
        source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
        for _ in range(rounds):
            for way, model in models.items():
                target.unlink(missing_ok=True)
                start = time.process_time()
                files.predict(model, str(source), str(target), columns={"text": "text"})
                seconds[way].append(time.process_time() - start)
                answers[way] = probabilities([json.loads(line) for line in target.open(encoding="utf-8")])
                print(way, seconds[way][-1], flush=True)
    lines = []
    for way, model in models.items():
        ratios = [a / b for a, b in zip(seconds[PLAIN], seconds[way], strict=True)]
        alone = probabilities([model.predict([text])[0] for text in texts[:ALONE]])
        apart = abs(alone - answers[way][:ALONE]).max(1)
        beside = abs(answers[way] - answers[PLAIN]).max(1)
        others = (answers[way].argmax(1) != answers[PLAIN].argmax(1)).sum()
        flips = (alone.argmax(1) != answers[way][:ALONE].argmax(1)).sum()
        lines.append(
            f"| {way} | {statistics.median(seconds[way]):.2f} | {statistics.median(ratios):.2f} ({min(ratios):.2f} to "
            f"{max(ratios):.2f}) | {np.median(beside):.1e}, {beside.max():.1e} | {others} | {apart.max():.1e}, "
            f"{(apart > 1e-3).mean():.1%} | {flips} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path)
    parser.add_argument("runs", type=Path, nargs="+")
    options = parser.parse_args()
    import torch
    import transformers

    import bert_ft
    from bert_ft.tools import int8

    lines = (options.data / "glue" / "SST-2" / "train.tsv").read_text(encoding="utf-8").splitlines()
    texts = [line.rpartition("\t")[0] for line in lines[1 : ROWS + 1]]
    flags = set(Path("/proc/cpuinfo").read_text().split())
    machine = ", ".join(flag for flag in ("avx2", "avx512f", "avx512_vnni", "avx_vnni") if flag in flags)
    table = speed(options.runs[0], texts, options.rounds)
    told = [int8.line(bert_ft.load(run, dtype="int8")) for run in options.runs]
    text = f"""# int8 on a CPU

`python benchmarks/int8.py` with {options.rounds} rounds in turn, one thread, CPU seconds; {machine}; torch {torch.__version__}, transformers {transformers.__version__}

{ROWS:,} training rows of SST-2 through `bert-ft predict`, all-MiniLM-L6-v2, JSONL to JSONL, loading not counted. The last two columns: {ALONE:,} rows, each alone and among the others.

| | CPU seconds (median) | times float32's speed | difference of a probability from float32's, median, largest | other answers than float32's | alone and among others: largest difference of a probability, rows beyond 0.001 | answers that change |
|---|---|---|---|---|---|---|
{table}

What `--int8` says of runs, on their validation rows:

{chr(10).join(f"- {run.name}: {line}" for run, line in zip(options.runs, told, strict=True))}
"""
    print(text)
    if options.output:
        options.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
