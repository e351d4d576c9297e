"""Whether one temperature makes probabilities mean what they say: calibration error before and after, on rows that neither
chose the weights nor the temperature, and that it changes no answer.

    python benchmarks/calibration.py --data ../shared/data --checkpoint .demo/all-MiniLM-L6-v2 --output benchmarks/results/calibration.md

SST-2, emotion and the sources of STS-B's sentences, as `few_rows.py` reads them: 1,200 rows to train on, 400 that choose
the temperature, up to 1,000 to test, drawn anew for each seed. Where onnxruntime is installed, the first seed's runs are exported too.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported

import argparse
import importlib.util
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import few_rows
import numpy as np

TRAIN, VALIDATION, TEST = 1200, 400, 1000
RECIPE: dict[str, Any] = {
    "max_steps": 150,
    "batch_size": 16,
    "learning_rate": 1e-4,
    "eval_every": 150,
    "keep": "last",
    "max_length": 64,
    "precision": "fp32",
}
TITLES = {"sst2": "SST-2", "emotion": "emotion, 6 labels", "sources": "sources of STS-B, 6 labels"}


def rows(table: few_rows.Table, places: np.ndarray) -> list[dict[str, str]]:
    texts, labels = table
    return [{"text": texts[at], "label": str(labels[at])} for at in places]


def one(name: str, seed: int, data: Path, checkpoint: str, folder: Path) -> dict[str, Any]:
    """What a run of this seed says of its test rows with and without its temperature."""
    import bert_ft

    learned, scored = (few_rows.SETS[name](data, part) for part in ("train", "dev"))
    random = np.random.default_rng(seed)
    taken = random.permutation(len(learned[0]))[:TRAIN]
    others = random.permutation(len(scored[0]))
    test = rows(scored, others[VALIDATION : VALIDATION + TEST])
    run = bert_ft.finetune(
        "classification",
        checkpoint,
        train=rows(learned, taken),
        validation=rows(scored, others[:VALIDATION]),
        test=test,
        seed=seed,
        output=folder,
        overwrite=True,
        quiet=True,
        baselines=False,
        check=False,
        **RECIPE,
    )
    states = run.results["calibration"]["test"]
    texts = [row["text"] for row in test]
    kept = [json.loads(line) for line in (folder / "predictions" / "test.jsonl").open(encoding="utf-8")]
    again = bert_ft.load(folder).predict(texts)
    found = {
        "set": name,
        "seed": seed,
        "temperature": run.results["tuned"]["temperature"],
        "before": states["before"],
        "after": states["after"],
        "loaded": apart(again, kept),
        "flips": plain_flips(run, texts, again),
        "rows": len(test),
    }
    if seed == 0 and importlib.util.find_spec("onnxruntime"):
        from bert_ft.tools.export.export import export

        export(folder)
        found["exported"] = apart(bert_ft.load(folder, onnx="fp32").predict(texts), kept)
    return found


def apart(answers: list[dict[str, Any]], kept: list[dict[str, Any]]) -> float:
    """The largest difference of a probability; all answers are the same."""
    assert [a["prediction"] for a in answers] == [k["prediction"] for k in kept]
    return max(
        abs(a["probabilities"][label] - p)
        for a, k in zip(answers, kept, strict=True)
        for label, p in k["probabilities"].items()
    )


def plain_flips(run: Any, texts: list[str], answers: list[dict[str, Any]]) -> int:
    """How many answers are others without the temperature."""
    model = run.model
    temperature = model.adapter.tuned.pop("temperature")
    plain = run.predict(texts)
    model.adapter.tuned["temperature"] = temperature
    return sum(a["prediction"] != b["prediction"] for a, b in zip(plain, answers, strict=True))


def line(several: list[dict[str, Any]]) -> str:
    """A line of the table: medians over the seeds, with their range; intervals of the first seed."""

    def told(of: str, key: str) -> str:
        values = [one[of][key] for one in several]
        spread = f" ({min(values):.3f} to {max(values):.3f})" if len(values) > 1 else ""
        return f"{statistics.median(values):.3f}{spread}"

    first = several[0]
    intervals = " → ".join(f"{first[of]['low']:.3f} to {first[of]['high']:.3f}" for of in ("before", "after"))
    temperatures = ", ".join(f"{one['temperature']:.2f}" for one in several)
    exported = f"{first['exported']:.0e}" if "exported" in first else "–"
    return (
        f"| {TITLES[first['set']]}, {first['rows']} rows | {temperatures} | {told('before', 'ece')} | {told('after', 'ece')} | "
        f"{told('after', 'by_chance')} | {intervals} | {told('before', 'nll')} | {told('after', 'nll')} | "
        f"{sum(one['flips'] for one in several)} | {max(one['loaded'] for one in several):.0e} | {exported} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sets", nargs="+", default=list(few_rows.SETS), choices=list(few_rows.SETS))
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        for name in options.sets:
            several = []
            for seed in range(options.seeds):
                several.append(one(name, seed, options.data, options.checkpoint, Path(folder) / name))
                print(several[-1], flush=True)
            lines.append(line(several))
    from bert_ft.tools.export.graph import versions

    text = f"""# Calibration by one temperature

`python benchmarks/calibration.py`: all-MiniLM-L6-v2, {RECIPE["max_steps"]} steps on {TRAIN:,} rows, {VALIDATION} validation rows fit the temperature, measured on test rows; `--seeds {options.seeds}`{": median (range)" if options.seeds > 1 else ""}

| test | temperatures | ECE before | ECE after | were every probability right | 95 % intervals, first seed | NLL before | NLL after | answers that change | largest difference once loaded | once exported |
|---|---|---|---|---|---|---|---|---|---|---|
{chr(10).join(lines)}

ECE: mean distance of the answers' probability from the share that is right, in 15 bins of equally many rows, with its bootstrap interval. The last columns: of a probability, against those that the run wrote.

{", ".join(f"{name} {version}" for name, version in versions(("torch", "transformers")).items())}, fp32, one thread
"""
    print(text)
    if options.output:
        options.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
