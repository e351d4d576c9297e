"""What Platt's sigmoid and isotonic regression of every label do beside one temperature: calibration error, likelihood and
accuracy on rows that neither chose the weights nor what calibrates, and how many answers become others.

    python benchmarks/label_calibration.py --data ../shared/data --checkpoint .demo/all-MiniLM-L6-v2 --output benchmarks/results/label_calibration.md

The sets and the recipe of `calibration.py`, all rows out of their training parts, drawn anew for each seed: 1,200 to train on,
1,000 that calibrate, 2,000 to test. One training a seed; each method is fitted to the same logits as a run fits it.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

import calibration as one_temperature
import few_rows
import numpy as np

from bert_ft.metrics import calibration, label_calibration

PARTS = {"train": 1200, "validation": 1000, "test": 2000}
States = dict[str, tuple[np.ndarray, np.ndarray]]


def plain(name: str, seed: int, data: Path, checkpoint: str, folder: Path) -> States:
    """Set -> (N, C) probabilities that nothing calibrates, and (N,) gold."""
    import bert_ft

    table = few_rows.SETS[name](data, "train")
    order = np.random.default_rng(seed).permutation(len(table[0]))
    ends = np.cumsum([0, *PARTS.values()])
    sets = {
        part: one_temperature.rows(table, order[a:b])
        for part, a, b in zip(PARTS, ends[:-1], ends[1:], strict=True)
    }
    run = bert_ft.finetune("classification", checkpoint, output=folder, overwrite=True, seed=seed, quiet=True,
                           baselines=False, check=False, calibration="none", **one_temperature.RECIPE, **sets)  # fmt: skip
    found = {}
    for part in ("validation", "test"):
        lines = run.predictions(part)
        names = list(lines[0]["probabilities"])
        p = np.array([[line["probabilities"][label] for label in names] for line in lines])
        found[part] = p, np.array([names.index(str(line["label"])) for line in lines])
    return found


def measured(states: States) -> dict[str, dict[str, Any]]:
    """Method -> its measures on the test rows."""
    (p, gold), (new, truth) = states["validation"], states["test"]
    said = {"none": new}
    divisor = calibration.temperature(p, gold)
    said["temperature"] = new if divisor is None else calibration.scaled(new, divisor)
    for method in label_calibration.METHODS:
        fitted = label_calibration.fits(method, p, np.eye(p.shape[1])[gold], False)
        said[method] = label_calibration.calibrated(method, new, fitted, False)
    result = {}
    for method, q in said.items():
        found = calibration.measures(q, truth)
        result[method] = {
            "ece": found.ece,
            "classwise": found.classwise,
            "brier": found.brier,
            "nll": found.nll,
            "accuracy": float((q.argmax(1) == truth).mean()),
            "changed": int((q.argmax(1) != new.argmax(1)).sum()),
        }
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        for name in few_rows.SETS:
            several = []
            for seed in range(options.seeds):
                states = plain(name, seed, options.data, options.checkpoint, Path(folder) / "run")
                several.append(measured(states))
                print(name, several[-1], flush=True)
            for method in several[0]:
                values = {
                    key: statistics.median(one[method][key] for one in several) for key in several[0][method]
                }
                numbers = " | ".join(
                    f"{values[key]:.3f}" for key in ("ece", "classwise", "brier", "nll", "accuracy")
                )
                title = one_temperature.TITLES[name]
                lines.append(f"| {title} | {method} | {numbers} | {values['changed']:.0f} |")
    from bert_ft.tools.export.graph import versions

    text = f"""# Calibration by a temperature, and by label

`python benchmarks/label_calibration.py`: all-MiniLM-L6-v2, {one_temperature.RECIPE["max_steps"]} steps on {PARTS["train"]:,} rows, {PARTS["validation"]:,} others calibrate, {PARTS["test"]:,} others test; `--seeds {options.seeds}`{": medians" if options.seeds > 1 else ""}

| set | calibrated by | ECE | class-wise | Brier | NLL | accuracy | answers that change |
|---|---|---|---|---|---|---|---|
{chr(10).join(lines)}

{", ".join(f"{name} {version}" for name, version in versions(("torch", "transformers")).items())}, fp32, one thread
"""
    print(text)
    if options.output:
        options.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
