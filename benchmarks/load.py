"""How cost grows where there is much: rows of a CSV, and runs in a folder. CPU seconds and peak memory of the commands.

    python benchmarks/load.py --data ../shared/data --checkpoint .demo/all-MiniLM-L6-v2 --output FILE

- rows: `check` of a CSV (the same sentences with a number each, about 200 bytes a row; 5,000,000 rows are 1 GB), and `train` with
  two layers to the end of its tenth step, with rows still to be tokenized and once they are cached
- runs: `runs`, and `compare` of ten of them, in a folder of so many finished runs
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import csv
import shutil
import sys
import tempfile
from pathlib import Path

from scaling import measured, slope, two_layers
from training import rows_of

COMMAND = [sys.executable, "-P", "-m", "bert_ft"]


def by_rows(data: Path, checkpoint: str, sizes: list[int], folder: Path) -> list[str]:
    """A table: a row a size."""
    model = str(two_layers(checkpoint, folder))
    sentences = [row["text"] for row in rows_of("sst2", data, 6400)]
    labels = [row["label"] for row in rows_of("sst2", data, 6400)]
    validation = folder / "validation.csv"
    with validation.open("w", newline="") as stream:
        csv.writer(stream).writerows([("text", "label"), *zip(sentences[:500], labels, strict=False)])
    os.environ["BERT_FT_CACHE"] = str(folder / "cache")
    lines = [
        "| rows | file, MB | `check`: CPU seconds | peak MB | `train`, ten steps: CPU seconds | peak MB | again, cached: CPU seconds | peak MB |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    seconds: dict[str, list[float]] = {"check": [], "first": [], "again": []}
    for size in sizes:
        file = folder / "rows.csv"
        with file.open("w") as stream:
            stream.write("text,label\n")
            for k in range(size):
                text = f"{sentences[k % 6400]} {k} {sentences[(k * 7 + k // 6400) % 6400]}"
                stream.write(f'"{text[:190].ljust(190, ".")}",{labels[k % 6400]}\n')
        found = [
            measured(
                [
                    *COMMAND,
                    "check",
                    "classification",
                    "--train",
                    str(file),
                    "--validation",
                    str(validation),
                    "-c",
                    model,
                ]
            )
        ]
        for name in ("first", "again"):
            training = [
                *COMMAND, "train", "classification", "-c", model, "--train", str(file), "--validation", str(validation),
                "--set", "recipe.max_steps=10", "--no-baselines", "--no-check", "--output", str(folder / name), "--overwrite", "--quiet",
            ]  # fmt: skip
            found.append(measured(training))
        for values, one in zip(seconds.values(), found, strict=True):
            values.append(one["seconds"])
        cells = " | ".join(f"{one['seconds']:.1f} | {one['peak']:,.0f}" for one in found)
        lines.append(f"| {size:,} | {file.stat().st_size / 1e6:,.0f} | {cells} |")
        print(lines[-1], file=sys.stderr, flush=True)
    if len(sizes) > 2:
        slopes = (
            f"{name} {slope(list(map(float, sizes[1:])), values[1:]):.2f}" for name, values in seconds.items()
        )
        lines += ["", f"Slopes from {sizes[1]:,} rows on, start-up within: {', '.join(slopes)}."]
    return lines


def by_runs(checkpoint: str, sizes: list[int], folder: Path) -> list[str]:
    """A table: a row a number of runs, which are copies of one with 500 rows of validation."""
    import bert_ft

    rows = [{"text": f"film {k % 97} of {k}", "label": "ab"[k % 2]} for k in range(900)]
    runs = folder / "runs"
    bert_ft.finetune(
        "classification", str(two_layers(checkpoint, folder / "for-runs")), train=rows[:400], validation=rows[400:],
        output=folder / "one", save_model=False, quiet=True, max_steps=5,
    )  # fmt: skip
    lines = [
        "| runs | `runs`: CPU seconds | peak MB | `runs --json`: CPU seconds | `compare` of ten: CPU seconds |",
        "|---:|---:|---:|---:|---:|",
    ]
    for size in sizes:
        for k in range(size):
            if not (target := runs / f"run-{k}").exists():
                shutil.copytree(folder / "one", target)
        listed = measured([*COMMAND, "runs", str(runs)])
        as_json = measured([*COMMAND, "runs", str(runs), "--json"])
        compared = measured([*COMMAND, "compare", *(str(runs / f"run-{k}") for k in range(10))])
        lines.append(
            f"| {size:,} | {listed['seconds']:.1f} | {listed['peak']:,.0f} | {as_json['seconds']:.1f} | {compared['seconds']:.1f} |"
        )
        print(lines[-1], file=sys.stderr, flush=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--rows", type=int, nargs="*", default=[10_000, 100_000, 1_000_000, 5_000_000])
    parser.add_argument("--runs", type=int, nargs="*", default=[10, 100, 500, 2_000])
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    import torch
    import transformers

    with tempfile.TemporaryDirectory() as place:
        parts = []
        if options.runs:
            parts += ["## Runs in a folder", "", *by_runs(options.checkpoint, options.runs, Path(place)), ""]
        if options.rows:
            parts += [
                "## Rows of a CSV",
                "",
                *by_rows(options.data, options.checkpoint, options.rows, Path(place)),
                "",
            ]
    command = " ".join(["python benchmarks/load.py", *sys.argv[1:]])
    conditions = f"One process after the other, one thread, fp32; torch {torch.__version__}, transformers {transformers.__version__}."
    text = "\n".join([f"`{command}`", "", *parts, conditions, ""])
    print(text)
    if options.output:
        options.output.write_text(text)


if __name__ == "__main__":
    main()
