"""How cost grows where there is much: rows of a CSV, and runs in a folder. CPU seconds and peak memory of the commands.

    python benchmarks/load.py --data ../shared/data --checkpoint .demo/all-MiniLM-L6-v2 --output FILE

- rows: `check` of a CSV (two sentences with a number each, about 200 bytes a row; 5,000,000 rows are 1 GB), with a tokenizer
  (`-c`) and without, and `train` with two layers to the end of its tenth step, with rows to be tokenized and once they are cached
- embed: vectors of so many sentences with a number each, two layers, to a .npy file
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


def by_rows(data: Path, checkpoint: str, sizes: list[int], most: int, folder: Path) -> list[str]:
    """A table: a row a size. What tokenizes is measured up to `most` rows."""
    model = str(two_layers(checkpoint, folder))
    rows = rows_of("sst2", data, 6400)
    sentences, labels = [row["text"] for row in rows], [row["label"] for row in rows]
    file, validation = folder / "rows.csv", folder / "validation.csv"
    with validation.open("w", newline="") as stream:
        csv.writer(stream).writerows([("text", "label"), *zip(sentences[:500], labels, strict=False)])
    os.environ["BERT_FT_CACHE"] = str(folder / "cache")
    sets = ["classification", "--train", str(file), "--validation", str(validation)]
    check = [*COMMAND, "check", *sets]
    train = [
        *COMMAND, "train", *sets, "-c", model, "--set", "recipe.max_steps=10", "--no-baselines", "--no-check",
        "--output", str(folder / "run"), "--overwrite", "--quiet",
    ]  # fmt: skip
    commands = {
        "`check`": check,
        "`check -c`": [*check, "-c", model],
        "`train`, ten steps": train,
        "again, cached": train,
    }
    titles = (f"{name}: CPU seconds | peak MB" for name in commands)
    lines = [f"| rows | file, MB | {' | '.join(titles)} |", "|---:" * (2 + 2 * len(commands)) + "|"]
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for size in sizes:
        with file.open("w") as stream:
            stream.write("text,label\n")
            for k in range(size):
                text = f"{sentences[k % 6400]} {k} {sentences[(k * 7 + k // 6400) % 6400]}"
                stream.write(f'"{text[:190].ljust(190, ".")}",{labels[k % 6400]}\n')
        cells = []
        for name, command in commands.items():
            if size > most and command is not check:
                cells.append("- | -")
                continue
            one = measured(command)
            seconds[name].append(one["seconds"])
            cells.append(f"{one['seconds']:.1f} | {one['peak']:,.0f}")
        lines.append(f"| {size:,} | {file.stat().st_size / 1e6:,.0f} | {' | '.join(cells)} |")
        print(lines[-1], file=sys.stderr, flush=True)
    if len(sizes) > 2:
        slopes = (
            f"{name} {slope(list(map(float, sizes[1 : len(values)])), values[1:]):.2f}"
            for name, values in seconds.items()
        )
        lines += ["", f"Slopes from {sizes[1]:,} rows on, start-up within: {', '.join(slopes)}."]
    return lines


def by_vectors(data: Path, checkpoint: str, sizes: list[int], folder: Path) -> list[str]:
    """A table: a row a size."""
    model = str(two_layers(checkpoint, folder / "for-vectors"))
    sentences = [row["text"] for row in rows_of("sst2", data, 6400)]
    lines = ["| rows | `embed`: CPU seconds | peak MB |", "|---:|---:|---:|"]
    for size in sizes:
        file = folder / "sentences.csv"
        with file.open("w", newline="") as stream:
            csv.writer(stream).writerows([("text",), *((f"{sentences[k % 6400]} {k}",) for k in range(size))])
        one = measured([*COMMAND, "embed", model, str(file), "-o", str(folder / "vectors.npy")])
        lines.append(f"| {size:,} | {one['seconds']:.1f} | {one['peak']:,.0f} |")
        print(lines[-1], file=sys.stderr, flush=True)
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
    parser.add_argument("--embed", type=int, nargs="*", default=[20_000, 1_000_000])
    parser.add_argument("--most", type=int, default=1_000_000, help="rows up to which they are tokenized")
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
                *by_rows(options.data, options.checkpoint, options.rows, options.most, Path(place)),
                "",
            ]
        if options.embed:
            parts += [
                "## Vectors",
                "",
                *by_vectors(options.data, options.checkpoint, options.embed, Path(place)),
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
