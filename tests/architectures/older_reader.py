"""What a version of `transformers`, and sentence-transformers beside it, makes of saved folders: run by the Python of
either version, it knows nothing of bert-ft.

    python older_reader.py JOBS ANSWERS    # JSON: name -> {folder, how, inputs}; name -> {value, warnings}
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers as tf

LOADED = ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")


def encoded(folder: str, inputs: list[list[str]]) -> Any:
    """Ids, characters and columns of texts, and the special tokens beyond the usual ones."""
    tokenizer = tf.AutoTokenizer.from_pretrained(folder)
    rows = [tokenizer(*texts, return_offsets_mapping=True) for texts in inputs]
    found = [
        {name: [list(at) for at in row[name]] if "offset" in name else row[name] for name in row}
        for row in rows
    ]
    return [found, tokenizer.padding_side, tokenizer.truncation_side, sorted(tokenizer.all_special_tokens)]


def logits(head: str) -> Callable[[str, list[list[str]]], Any]:
    def read(folder: str, inputs: list[list[str]]) -> Any:
        tokenizer = tf.AutoTokenizer.from_pretrained(folder)
        model, info = getattr(tf, head).from_pretrained(folder, output_loading_info=True)
        assert not any(info.get(key) for key in LOADED), info
        model.eval()
        results = []
        for texts in inputs:
            batch = tokenizer(*texts, truncation=True, return_tensors="pt")
            with torch.inference_mode():
                output = model(**batch)
            wanted = ("start_logits", "end_logits") if "Question" in head else ("logits",)
            results.append([batch["input_ids"].tolist(), *(output[name].tolist() for name in wanted)])
        return results

    return read


def states(folder: str, inputs: list[list[str]]) -> Any:
    """The last hidden states of the headless model."""
    tokenizer, model = tf.AutoTokenizer.from_pretrained(folder), tf.AutoModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        return [
            model(**tokenizer(*texts, truncation=True, return_tensors="pt")).last_hidden_state.tolist()
            for texts in inputs
        ]


def classes(folder: str, inputs: list[list[str]]) -> Any:
    answer = tf.pipeline("text-classification", folder, top_k=None)
    several = [texts[0] if len(texts) == 1 else {"text": texts[0], "text_pair": texts[1]} for texts in inputs]
    rows = [answer([one], truncation=True) for one in several]
    return [{entry["label"]: entry["score"] for entry in row[0]} for row in rows]


def entities(folder: str, inputs: list[list[str]]) -> Any:
    answer = tf.pipeline("token-classification", folder, aggregation_strategy="first", stride=20)
    rows = [answer(texts[0]) for texts in inputs]
    return [[[e["entity_group"], e["start"], e["end"], float(e["score"])] for e in row] for row in rows]


def scores(folder: str, inputs: list[list[str]]) -> Any:
    from sentence_transformers import CrossEncoder

    return CrossEncoder(folder).predict([tuple(texts) for texts in inputs]).tolist()


def vectors(folder: str, inputs: list[list[str]]) -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(folder).encode([texts[0] for texts in inputs]).tolist()


def code(folder: str, inputs: list[list[str]]) -> Any:
    """The answers of the model card's first block, which asks a question, to questions on contexts."""
    card = Path(folder, "README.md").read_text(encoding="utf-8")
    block = card.partition("```python\n")[2].partition("```")[0].replace("PATH_OR_ID_OF_THIS_MODEL", folder)
    own = next(line for line in block.splitlines() if line.startswith("question, context = "))
    answers = []
    for pair in inputs:
        scope: dict[str, Any] = {}
        exec(block.replace(own, f"question, context = {pair!r}"), scope)
        answers.append(scope["answer"])
    return answers


HOW: dict[str, Callable[[str, list[list[str]]], Any]] = {
    "encoded": encoded,
    "classification": logits("AutoModelForSequenceClassification"),
    "ner": logits("AutoModelForTokenClassification"),
    "qa": logits("AutoModelForQuestionAnswering"),
    "states": states,
    "classes": classes,
    "entities": entities,
    "scores": scores,
    "vectors": vectors,
    "code": code,
}


class Heard(logging.Handler):
    """What the libraries warn of."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def main(jobs: str, answers: str) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    heard = Heard()
    for library in ("transformers", "sentence_transformers"):
        logging.getLogger(library).addHandler(heard)
    results = {}
    with open(jobs, encoding="utf-8") as stream:
        several = json.load(stream)
    for name, job in several.items():
        heard.lines.clear()
        try:
            value = HOW[job["how"]](job["folder"], job["inputs"])
        except Exception as error:  # what it can't read is an answer, too
            value = f"{type(error).__name__}: {error}"
        results[name] = {"value": value, "warnings": list(heard.lines)}
    with open(answers, "w", encoding="utf-8") as stream:
        json.dump(results, stream)


if __name__ == "__main__":
    main(*sys.argv[1:])
