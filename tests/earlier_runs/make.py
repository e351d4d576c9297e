"""Makes the run folders beside this file: what the commit before a change of the house wrote, for `test_earlier_runs.py`.

    python tests/earlier_runs/make.py        # with the bert-ft whose runs are to be kept, in an empty folder `kept/`

They are small on purpose: a random BERT of two layers of 16, 24 rows a set.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tokenizers import BertWordPieceTokenizer
from transformers import BertConfig, BertModel, BertTokenizerFast

import bert_ft

HERE = Path(__file__).resolve().parent
FILMS = [
    ("a fine warm film", "good"),
    ("a dull cold film", "bad"),
    ("这部电影很好看", "good"),
    ("这部电影很无聊", "bad"),
]
SENTENCE = ("Ada Lovelace lived in London", ["B-person", "I-person", "O", "O", "B-place"])
CONTEXT = "Ada Lovelace was born in London in 1815."
RECIPE = {"max_length": 32, "epochs": 8, "batch_size": 8, "learning_rate": 1e-2, "quiet": True}
OPTIONS = {
    "classification": {"max_length": 8, "windows": True, "classification.stride": 2},
    "ner": {"label_all_tokens": True},
    "qa": {"doc_stride": 8, "max_answer_length": 5},
}


def checkpoint(folder: Path) -> Path:
    """A BERT without a head, random but always the same."""
    pieces = BertWordPieceTokenizer(lowercase=True)
    texts = [text for text, _ in FILMS] + [SENTENCE[0], CONTEXT, "where was Ada born?"]
    pieces.train_from_iterator(texts, vocab_size=120, min_frequency=1, show_progress=False)
    tokenizer = BertTokenizerFast(tokenizer_object=pieces._tokenizer, model_max_length=64)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    BertModel(
        BertConfig(
            vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
            intermediate_size=32, max_position_embeddings=64,
        )
    ).save_pretrained(folder)  # fmt: skip
    return folder


def rows() -> dict[str, list[dict[str, object]]]:
    """Task -> 24 rows."""
    words, tags = SENTENCE
    answer = {"text": "London", "answer_start": CONTEXT.index("London")}
    return {
        "classification": [{"text": text, "label": label} for text, label in FILMS * 6],
        "ner": [{"tokens": words.split(), "tags": tags}] * 24,
        "qa": [
            {"id": str(i), "question": "where was Ada born?", "context": CONTEXT, "answers": [answer]}
            for i in range(24)
        ],
    }


def main() -> None:
    model = checkpoint(HERE / "kept" / "checkpoint")
    for family, lines in rows().items():
        file = HERE / "kept" / f"{family}.jsonl"
        file.write_text(
            "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8"
        )
        for seed in (1, 2) if family == "classification" else (1,):
            run = bert_ft.finetune(
                family, model, train=str(file), validation=str(file), seed=seed, **RECIPE | OPTIONS[family],
                output=HERE / "kept" / f"{family}-seed{seed}",
            )  # fmt: skip
            for name in ("report.html", ".lock"):  # nothing reads them
                (run.path / name).unlink()
            for name in ("task.toml", "results.json"):
                written = run.path / name
                text = written.read_text(encoding="utf-8").replace(str(HERE), "@HERE@")
                written.write_text(text, encoding="utf-8")
            print(run.path.name, run.metrics["validation"])


if __name__ == "__main__":
    main()
