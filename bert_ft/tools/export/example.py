"""The example that is written beside a graph: a dozen lines with onnxruntime and tokenizers alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bert_ft.families.base import problem_type
from bert_ft.metrics.label_calibration import FARTHEST, METHODS
from bert_ft.modeling.exported import ANSWERING
from bert_ft.modeling.model import Model

HEAD = '''\
"""Answers with model.onnx: pip install onnxruntime tokenizers, then python example.py {usage}"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

here = Path(__file__).parent
answering = json.loads((here / "{answering}").read_text(encoding="utf-8"))
tokenizer = Tokenizer.from_file(str(here / "tokenizer.json"))
tokenizer.enable_truncation(answering["max_length"]{side})  # a longer text is cut
found = tokenizer.encode(*sys.argv[1:{last}])
columns = {{"input_ids": found.ids, "attention_mask": found.attention_mask, "token_type_ids": found.type_ids}}
session = onnxruntime.InferenceSession(here / "model.onnx")
inputs = {{each.name: np.array([columns[each.name]], np.int64) for each in session.get_inputs()}}
'''
ONE = "logits = session.run(None, inputs)[0][0].astype(float)\n"
SCORES = 'print(json.dumps(dict(zip(answering["labels"], scores.tolist())), ensure_ascii=False))\n'
BOUND = "odds = odds.clip(-{farthest}, {farthest})\n"
BY_LABEL = f"""\
odds = np.log(np.maximum(scores, 1e-300) / np.maximum({{others}}, 1e-300))
{BOUND}\
for at, name in enumerate(answering["labels"]):  # calibrated
    if name in answering["tuned"]["{{method}}"]:
        one, other = answering["tuned"]["{{method}}"][name]
        scores[at] = {{formula}}
"""
SUM = "scores = scores / scores.sum() if scores.any() else scores + 1 / len(scores)\n"
FORMULAS = {
    "platt": "1 / (1 + np.exp(-one * odds[at] - other))",
    "isotonic": "np.interp(odds[at], one, other)",
}
ENDINGS = {
    "single_label_classification": ONE
    + 'logits = logits / answering["tuned"].get("temperature", 1.0)  # calibrated\n'
    + "scores = np.exp(logits - logits.max())\nscores = scores / scores.sum()\n"
    + "{by_label}"
    + SCORES,
    "multi_label_classification": ONE
    + 'divisors = answering["tuned"].get("temperature", {})  # of calibrated labels\n'
    + 'logits = logits / np.array([divisors.get(name, 1.0) for name in answering["labels"]])\n'
    + 'scores = 1 / (1 + np.exp(-logits))  # a label holds above its threshold: answering["tuned"], or 0.5\n'
    + "{by_label}"
    + SCORES,
    "regression": ONE + "print(float(logits[0]))\n",
    "tokens": ONE
    + """\
tags = [answering["labels"][tag] for tag in logits.argmax(1)]
text = sys.argv[1]
print([(text[start:end], tag) for (start, end), tag in zip(found.offsets, tags) if end > start])
""",
    "spans": """\
start, end = (logits[0] for logits in session.run(None, inputs))
scores = start[:, None] + end + np.where(np.triu(np.ones((len(start), len(start)))), 0, -np.inf)
inside = np.array(found.sequence_ids) == 1  # tokens of the second text
scores = np.where(inside[:, None] & inside, scores, -np.inf)
first, last = np.unravel_index(scores.argmax(), scores.shape)
print(sys.argv[2][found.offsets[first][0] : found.offsets[last][1]])
""",
    "raw": "print([output.tolist() for output in session.run(None, inputs)])\n",
}


def text(model: Model, outputs: list[str]) -> str:
    """The example of a model; `outputs`: the names of what its graph gives."""
    adapter = model.adapter
    kind = "tokens" if adapter.head.endswith("TokenClassification") else problem_type(model.network.config)
    if outputs != ["logits"]:
        kind = "spans"
    if adapter.pipeline_tag is None and kind != "regression":  # nothing is known of what they mean
        kind = "raw"
    roles = [role for role, needed in adapter.inputs.items() if needed]
    usage = " ".join(role.upper() for role in roles)
    side = ', direction="left"' if model.tokenizer.truncation_side == "left" else ""
    head = HEAD.format(usage=usage, answering=ANSWERING, side=side, last=1 + len(roles))
    return head + ENDINGS[kind].replace("{by_label}", _by_label(adapter.tuned, kind))


def _by_label(tuned: Mapping[str, Any], kind: str) -> str:
    """The lines that calibrate every label, where the model does."""
    method = next((each for each in METHODS if each in tuned), None)
    if method is None:
        return ""
    several = kind == "multi_label_classification"
    others = "1 - scores" if several else "scores.sum() - scores"
    lines = BY_LABEL.format(method=method, formula=FORMULAS[method], others=others, farthest=FARTHEST)
    return lines if several else lines.replace(BOUND.format(farthest=FARTHEST), "") + SUM
