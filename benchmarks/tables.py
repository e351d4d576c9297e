"""What an optimizer's step over the rows that were seen (kernels/seen_rows.py) gains for large vocabularies: training
steps and peak memory of models with random weights, each in a process of its own, in turn.

    python benchmarks/tables.py
    python benchmarks/tables.py --shapes xlm-roberta-base --rounds 5 --output benchmarks/results/tables.md

Batches of 16 rows of 27 tokens on average, drawn from 8,000 pieces by Zipf's law, as a small data set has them. CPU
seconds of one thread, medians with range over the rounds of the median step of each; peak memory of the whole process.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

# vocabulary, width, layers, feed-forward, as the checkpoints of that name have them; all with 12 heads
SHAPES = {
    "all-MiniLM-L6-v2": (30_522, 384, 6, 1536),
    "bert-base-chinese": (21_128, 768, 12, 3072),
    "multilingual-e5-small": (250_037, 384, 12, 1536),
    "xlm-roberta-base": (250_002, 768, 12, 3072),
}
ROWS, SEEN = 16, 8_000


def one(shape: str, rows: bool, steps: int) -> dict[str, Any]:
    """Seconds of the median step, those of its optimizer, and the peak in MB, with the optimizer over the rows that
    were seen or over all."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    from bert_ft.kernels import cpu, padding_free

    torch.set_num_threads(1)
    torch.manual_seed(0)
    vocabulary, width, layers, inner = SHAPES[shape]
    config = BertConfig(
        vocab_size=vocabulary, hidden_size=width, num_hidden_layers=layers, intermediate_size=inner
    )
    network = BertForSequenceClassification(config).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-5, weight_decay=0.0, fused=True)
    handle = padding_free.unpad(network)
    assert handle.active, handle.reason
    pieces = torch.randperm(vocabulary)[:SEEN]
    often = 1 / torch.arange(1, SEEN + 1)
    whole, inside, seen = [], [], set()
    with cpu.lean(network, True, optimizer=optimizer if rows else None) as lean:
        assert lean is not None
        for _ in range(steps):
            lengths = torch.randint(8, 46, (ROWS,))
            ids = pieces[torch.multinomial(often, ROWS * 46, replacement=True)].view(ROWS, 46)
            mask = (torch.arange(46) < lengths[:, None]).long()
            seen |= set(ids[mask.bool()].tolist())
            start = time.process_time()
            network(input_ids=ids, attention_mask=mask).logits.square().sum().backward()
            lean.clip(optimizer, network.parameters(), 1.0)
            before = time.process_time()
            optimizer.step()
            inside.append(time.process_time() - before)
            optimizer.zero_grad()
            whole.append(time.process_time() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "step": statistics.median(whole[2:]),
        "optimizer": statistics.median(inside[2:]),
        "peak": peak,
        "seen": len(seen),
    }


def line(shape: str, found: dict[bool, list[dict[str, Any]]]) -> str:
    def told(key: str, scale: float, digits: int) -> str:
        cells = []
        for rows in (False, True):
            values = [scale * run[key] for run in found[rows]]
            cells.append(
                f"{statistics.median(values):,.{digits}f} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"
            )
        return " | ".join(cells)

    ratios = [a["step"] / b["step"] for a, b in zip(found[False], found[True], strict=True)]
    return (
        f"| {shape} | {found[True][0]['seen']:,} of {SHAPES[shape][0]:,} | {told('optimizer', 1000, 0)} | {told('step', 1000, 0)} | "
        f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) | {told('peak', 1, 0)} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(options.one[0], options.one[1] == "seen", options.steps)))
        return
    lines = [
        "| shape | pieces seen | AdamW over all, ms | over those seen | step with all, ms | with those seen | all / seen | peak with all, MB | with those seen |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    for shape in options.shapes:
        found: dict[bool, list[dict[str, Any]]] = {False: [], True: []}
        for number in range(options.rounds):
            for rows in (False, True) if number % 2 else (True, False):
                command = [sys.executable, __file__, "--steps", str(options.steps)]
                command += ["--one", shape, "seen" if rows else "all"]
                done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
                found[rows].append(json.loads(done.stdout.splitlines()[-1]))
        lines.append(line(shape, found))
        print(lines[-1], file=sys.stderr, flush=True)
    import torch
    import transformers

    conditions = (
        f"{options.rounds} pairs of {options.steps} steps, medians with range, one thread, fp32, dropout on; torch {torch.__version__}, "
        f"transformers {transformers.__version__}."
    )
    text = "\n".join([*lines, "", conditions, ""])
    print(text)
    if options.output:
        command = f"python benchmarks/tables.py --rounds {options.rounds} --steps {options.steps}"
        options.output.write_text(f"# Large vocabularies\n\n`{command}`\n\n{text}")


if __name__ == "__main__":
    main()
