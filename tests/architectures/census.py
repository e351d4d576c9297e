"""The census: each architecture of the zoo is fine-tuned for three steps in each family, and loaded again in a fresh
process, where its rows are answered together, one by one, and by plain transformers.

    export HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1
    python tests/architectures/census.py                 # all of it: writes docs/architectures.md
    python tests/architectures/census.py bert funnel     # a line each on the screen
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import transformers as tf
import zoo

import bert_ft
from bert_ft.engine import inference
from bert_ft.engine.sharing import ANY
from bert_ft.pages import run_page

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "architectures.md"
FAMILIES = tuple(zoo.MAPS)
Cell = dict[str, Any]
MASKED = -1e4  # logits below it stand for positions where no answer may be


def cells(name: str) -> list[str]:
    """The families that an architecture has a head for."""
    return [family for family in FAMILIES if name.split("+")[0] in zoo.MAPS[family]]


def guarded(work: Callable[[], Cell]) -> Cell:
    """What a cell is; a refusal and a traceback are cells, too."""
    try:
        return work()
    except bert_ft.InputError as error:
        return {"state": "refused", "why": error.message, "message": str(error)}
    except Exception as error:
        frames = [
            f"{Path(f.filename).name}:{f.lineno}" for f in traceback.extract_tb(error.__traceback__)[-3:]
        ]
        return {
            "state": "traceback",
            "why": f"{type(error).__name__}: {str(error)[:300]} ({' > '.join(frames)})",
        }


# --- the first process trains -------------------------------------------------------------------------------------------


def train(name: str, family: str, folder: Path) -> Cell:
    """Three steps, and the answers of the model that was trained."""
    out = folder / "runs" / f"{name}-{family}"
    run = bert_ft.finetune(
        family, str(folder / "checkpoints" / name), train=zoo.rows(family, 0, 16), validation=zoo.rows(family, 24, 6),
        max_steps=3, batch_size=8, max_length=zoo.MAX, learning_rate=1e-3, output=out, check=False, quiet=True,
    )  # fmt: skip
    notes = run.results["notes"]
    equal = next((note for note in notes if note.startswith("equal lengths")), None)
    reason = next(note for note in notes if note.startswith("padd"))
    state = "equal lengths" if equal else reason.partition(":")[0].partition(",")[0]
    why = {"padded": reason.partition(": ")[2], "padding-free": ""}.get(state, "")
    beside = [
        note
        for note in notes
        if re.match(
            "block-sparse|full attention|this model can also|the model's config.json names no padding", note
        )
    ]
    np.save(
        out / "logits.npy",
        logits(run.model, run.model.encode(run.model.adapter.rows(zoo.inputs(family, 40, 12)))),
    )
    return {"state": state, "why": why, "notes": beside}


def logits(model: Any, features: Any) -> np.ndarray:
    return inference.predict(model.network, model.adapter, features, model.accelerator, pad=model.tokenizer.pad_token_id,
                             tokens=4096, sharing=model.sharing or ANY)  # fmt: skip


# --- the second loads, evaluates, predicts ------------------------------------------------------------------------------


def reload(name: str, family: str, folder: Path) -> Cell:
    """The largest differences of logits, as a share of the largest logit (at least 1): of this process to that which
    trained (`process`), of rows alone to together (`alone`), of plain transformers to together (`plain`)."""
    out = folder / "runs" / f"{name}-{family}"
    model, given = bert_ft.load(out / "model"), zoo.inputs(family, 40, 12)
    rows = model.adapter.rows(given)
    features = model.encode(rows)
    together = logits(model, features)
    scale = max(1.0, float(np.abs(together[together > MASKED]).max()))
    singles = [model.encode(rows.part(i, i + 1)) for i in range(len(rows))]
    alone = [logits(model, single) for single in singles]
    answers, ones = model.predict(given), [model.predict([one])[0] for one in given]
    bert_ft.evaluate(model, zoo.rows(family, 24, 6))
    found = {
        "process": np.abs(together - np.load(out / "logits.npy")).max() / scale,
        "alone": np.abs(together - np.concatenate(alone)).max() / scale,
        "answers": sum(a["prediction"] != b["prediction"] for a, b in zip(answers, ones, strict=True)),
        "spread": together[together > MASKED].std(),
    }
    if model.sharing.width is None:  # else plain transformers makes a batch of another width
        network = getattr(tf, model.adapter.head).from_pretrained(out / "model").eval()
        plain = [_plain(network, model, single) for single in singles]
        found["plain"] = np.abs(together - np.concatenate(plain)).max() / scale
    return {key: float(value) for key, value in found.items()}


def _plain(network: Any, model: Any, features: Any) -> np.ndarray:
    """What a plain `transformers` model gives for each feature, one by one and without padding."""
    import torch

    results = []
    for start, end in zip(features.offsets[:-1], features.offsets[1:], strict=True):
        tokens = {
            key: torch.tensor(column[start:end][None].astype(np.int64))
            for key, column in features.tokens.items()
        }
        with torch.no_grad():
            found = model.adapter.logits(
                network(**tokens, attention_mask=torch.ones_like(tokens["input_ids"]))
            )
        results.append(found.float().numpy()[0] if found.dim() == 3 else found.float().numpy())
    return np.concatenate(results)


# --- both -------------------------------------------------------------------------------------------------------------


def take(
    chosen: Mapping[str, Sequence[str]], folder: Path, say: Callable[[str], None] = lambda line: None
) -> dict[str, dict[str, Cell]]:
    """Architecture -> family -> cell: `state`, `why`, and what `reload` measures. `chosen`: the families of each."""
    results: dict[str, dict[str, Cell]] = {}
    for name, families in chosen.items():
        zoo.checkpoint(name, folder / "checkpoints" / name)
        results[name] = {}
        for family in families:
            results[name][family] = guarded(lambda name=name, family=family: train(name, family, folder))
        say(
            f"trained {name}: "
            + ", ".join(f"{family} {cell['state']}" for family, cell in results[name].items())
        )
    (folder / "trained.json").write_text(json.dumps(results))
    command, env = [sys.executable, __file__, "--reload", str(folder)], os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    if done.returncode:
        raise RuntimeError(done.stderr)
    again = json.loads((folder / "loaded.json").read_text())
    for name, families in results.items():
        for family, cell in families.items():
            cell |= again.get(name, {}).get(family, {})
    return results


def _reload_all(folder: Path) -> None:
    _prepare()
    results: dict[str, dict[str, Cell]] = {}
    for name, families in json.loads((folder / "trained.json").read_text()).items():
        for family, cell in families.items():
            if cell["state"] not in ("refused", "traceback"):
                found = guarded(lambda name=name, family=family: reload(name, family, folder))
                if found.get("state") == "refused":
                    found = {"state": "traceback", "why": f"trains, but can't be loaded: {found['message']}"}
                results.setdefault(name, {})[family] = found
    (folder / "loaded.json").write_text(json.dumps(results))


def _prepare() -> None:
    import torch

    torch.set_num_threads(1)
    tf.logging.set_verbosity_error()
    tf.logging.disable_progress_bar()
    run_page.leave = lambda *_: None  # type: ignore[assignment]  # no report, no model card


# --- the page ---------------------------------------------------------------------------------------------------------


def row(name: str, families: dict[str, Cell]) -> str:
    """The line of an architecture in the page's table."""
    kind, _, variant = name.partition("+")
    states = [families[family]["state"] if family in families else "–" for family in FAMILIES]
    whys = dict.fromkeys(cell.get("why", "") for cell in families.values())
    notes = dict.fromkeys(note for cell in families.values() for note in cell.get("notes", []))
    told = "; ".join(text.replace("|", "\\|") for text in [*whys, *notes] if text)
    return f"| {kind}{', ' * bool(variant)}{variant} | {' | '.join(states)} | {told} |"


def written(results: dict[str, dict[str, Cell]]) -> str:
    """The page."""
    lines = [row(name, results[name]) for name in sorted(results)]
    others = f"Not in the census: models that need more than text ({', '.join(sorted(zoo.OTHER))}), and other decoders: "
    return "\n".join(
        [HEAD.format(version=tf.__version__), *lines, "", others + ", ".join(zoo.DECODERS) + ".", ""]
    )


HEAD = """\
# Architectures

本页列出 `transformers` 三类自动模型中的全部文本架构，以及它们在本项目中的状态：*padding-free*（去除填充计算）、*padded*（照常填充）、*equal lengths*（填充会影响结果，评估和预测时只把等长的行放进同一批）或 *refused*（拒绝，并说明原因）。本页由测试生成。

Every model type of `transformers`' three auto mappings that reads text: the encoders, the encoder-decoders and eight decoders. Made by [`census.py`](../tests/architectures/census.py) with transformers {version}: a tiny random checkpoint of each is fine-tuned, saved, and loaded in a fresh process, where it gives the same answers as before, the same alone as together, and the same as plain `transformers`.

- **padding-free**: the padding is dropped inside the layers.
- **padded**: the padding is computed and masked, as in `transformers`; the last column says why.
- **equal lengths**: padding changes what real tokens get. The model is asked when it is loaded, and rows are then evaluated and predicted in batches of one length, so that an answer is a function of its row. `batching.equal_lengths = true` trains so too: the batch of the recipe stays, only its parts are computed apart.
- **refused**: with the sentence in the last column.
- –: `transformers` has no head of this kind.

| model type | classification | ner | qa | why |
|---|---|---|---|---|"""


def main(arguments: Iterable[str]) -> None:
    names = list(arguments)
    if names[:1] == ["--reload"]:
        return _reload_all(Path(names[1]))
    _prepare()
    folder = Path(tempfile.mkdtemp(prefix="census-"))
    try:
        results = take({name: cells(name) for name in names or zoo.ZOO}, folder, print)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for name, families in results.items():
        print(row(name, families))
        for family, cell in families.items():
            print("   ", family, {key: value for key, value in cell.items() if isinstance(value, float)})
    if not names:
        PAGE.write_text(written(results), encoding="utf-8")
    return None


if __name__ == "__main__":
    main(sys.argv[1:])
