"""Features once made are kept, and what a frozen encoder makes of them: flat arrays on disk, memory-mapped
the next time.

They lie in $BERT_FT_CACHE (default ~/.cache/bert-ft) under a key of everything they follow from: the rows,
the tokenizer, the adapter's code and settings, the length. A file that is damaged or missing is made anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from bert_ft import families, files
from bert_ft.data.rows import Rows, fingerprint
from bert_ft.families.base import Adapter
from bert_ft.families.features import Features

KINDS = ("tokens", "targets", "places", "values")
UNFINISHED = "unfinished-"
WORTH = 20_000  # rows below which reading is hardly faster than tokenizing
VECTORS = 1_000  # of them, below which they are not kept


def encode(adapter: Adapter, rows: Rows, tokenizer: Any, max_length: int, of: int | None = None) -> Features:
    """The adapter's features of these rows (a part of a set of `of` rows), from the cache where they are in
    it."""
    if (of or len(rows)) < WORTH:
        return adapter.encode(rows, tokenizer, max_length)
    folder = root() / key(adapter, rows, tokenizer, max_length)
    features = _features(*_read(folder))
    if features is None:
        features = adapter.encode(rows, tokenizer, max_length)
        _write(folder, _flat(features), features.counts)
    return features


def root() -> Path:
    """Where the cache lies."""
    return Path(os.environ.get("BERT_FT_CACHE", "~/.cache/bert-ft")).expanduser() / "features"


def kept() -> list[dict[str, Any]]:
    """One dict for each set of features in the cache: entry, rows, tokens, bytes, made (seconds since 1970).
    What was left half written, or is damaged, has no rows; it takes its bytes all the same."""
    entries = []
    for folder in sorted(root().glob("*/")):
        if not re.fullmatch(rf"[0-9a-f]{{32}}|{UNFINISHED}.*", folder.name):  # not ours
            continue
        try:
            counts = json.loads((folder / "index.json").read_text())["counts"]
        except (OSError, ValueError, KeyError):
            counts = {}
        size = sum(file.stat().st_size for file in folder.iterdir())
        entries.append(
            {
                "entry": folder.name,
                "rows": counts.get("rows", 0),
                "tokens": counts.get("tokens", 0),
                "bytes": size,
                "made": folder.stat().st_mtime,
            }
        )
    return entries


def clear() -> int:
    """Empties the cache; returns the bytes that are free again."""
    entries = kept()
    for entry in entries:
        shutil.rmtree(root() / entry["entry"], ignore_errors=True)
    return sum(entry["bytes"] for entry in entries)


def key(adapter: Adapter, rows: Rows, tokenizer: Any, max_length: int) -> str:
    """The sha256 of everything that the features depend on, 32 hex digits of it."""
    digest = hashlib.sha256(fingerprint({"rows": rows}).encode())
    digest.update(tokenizer.backend_tokenizer.to_str().encode())
    task = adapter.task.model_dump(include={"data", "recipe"})
    settings = [
        max_length,
        tokenizer.model_input_names,
        tokenizer.truncation_side,
        adapter.names,
        task["data"]["problem_type"],
        task["recipe"]["class_weights"],
        adapter.task.options.model_dump(),
    ]
    digest.update(json.dumps(settings).encode())
    code = {getattr(sys.modules.get(level.__module__), "__file__", None) for level in type(adapter).__mro__}
    for file in sorted({*map(str, Path(families.__file__).parent.rglob("*.py")), *filter(None, code)}):
        digest.update(Path(file).read_bytes())
    return digest.hexdigest()[:32]


def vectors(key: str, compute: Callable[[], np.ndarray]) -> np.ndarray:
    """(N, D) what an encoder makes of rows, from the cache where it is in it under this key."""
    folder = root() / key
    arrays, _ = _read(folder)
    if "vectors" in arrays:
        return arrays["vectors"]
    result = compute()
    if len(result) >= VECTORS:
        _write(folder, {"vectors": result}, {"rows": len(result)})
    return result


def _write(folder: Path, arrays: dict[str, np.ndarray], counts: dict[str, int]) -> None:
    """A cache that can't be written is no fault: the arrays are there already."""
    with suppress(OSError):
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=UNFINISHED))
        descriptor = files.hold(temporary)
        try:
            for name, array in arrays.items():
                np.save(temporary / f"{name}.npy", array, allow_pickle=False)
            index = {
                "arrays": {name: [str(a.dtype), list(a.shape)] for name, a in arrays.items()},
                "counts": counts,
            }
            (temporary / "index.json").write_text(json.dumps(index))
            shutil.rmtree(folder, ignore_errors=True)
            temporary.rename(folder)
        finally:
            os.close(descriptor)
            shutil.rmtree(temporary, ignore_errors=True)  # the disk is full, or another process came first


def _read(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """The arrays of an entry, by name, and its counts; nothing where it is damaged or not there. What killed
    processes had begun is taken away here, since another one may have made the entry that nobody then writes
    again."""
    files.sweep(folder.parent, re.compile(f"{UNFINISHED}.*"))
    try:
        index = json.loads((folder / "index.json").read_text())
        arrays = {
            name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
            for name in index["arrays"]
        }
        for name, (kind, shape) in index["arrays"].items():
            if str(arrays[name].dtype) != kind or list(arrays[name].shape) != shape:
                return {}, {}
        return arrays, index["counts"]
    except (OSError, ValueError, KeyError):
        return {}, {}


def _flat(features: Features) -> dict[str, np.ndarray]:
    """The arrays of features, by name."""
    return {"offsets": features.offsets, "weights": features.weights} | {
        f"{kind}.{name}": column for kind in KINDS for name, column in getattr(features, kind).items()
    }


def _features(arrays: dict[str, np.ndarray], counts: dict[str, int]) -> Features | None:
    """The features that these arrays are of; None where some are missing."""
    if not {"offsets", "weights"} <= arrays.keys():
        return None
    columns = {k: {n.partition(".")[2]: a for n, a in arrays.items() if n.startswith(f"{k}.")} for k in KINDS}
    return Features(arrays["offsets"], weights=arrays["weights"], counts=counts, **columns)
