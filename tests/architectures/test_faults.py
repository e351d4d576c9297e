"""What once was a traceback: packages that are missing, end tokens inside a text, training in parts of equal lengths."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import transformers as tf
import zoo

import bert_ft
from bert_ft.errors import InputError


def tuned(name: str, family: str, folder: Path, rows: list[dict[str, Any]], **settings: Any) -> Any:
    checkpoint = zoo.checkpoint(name, folder / name)
    return bert_ft.finetune(family, str(checkpoint), train=rows, validation=rows, max_steps=2, batch_size=4,
                            max_length=zoo.MAX, output=folder / "run", check=False, quiet=True, **settings)  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "package"), [("XLM", "sacremoses"), ("RoFormer", "rjieba"), ("PLBart", "sentencepiece")]
)
def test_a_missing_package_is_named(
    kind: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    config = getattr(tf, f"{kind}Config")()
    config.save_pretrained(tmp_path)
    words = {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "[PAD]": 3, "[MASK]": 4, "<unk>": 5, "a</w>": 6}
    (tmp_path / "vocab.json").write_text(json.dumps(words))
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b</w>\n")
    (tmp_path / "sentencepiece.bpe.model").write_bytes(b"")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": f"{kind}Tokenizer"}))
    with pytest.raises(InputError, match=package) as told:
        bert_ft.finetune("classification", str(tmp_path), train=zoo.rows("classification", 0, 8),
                         validation=zoo.rows("classification", 8, 4), output=tmp_path / "run", quiet=True)  # fmt: skip
    assert told.value.remedy == f"pip install {package}"


def test_an_end_token_inside_a_text(tmp_path: Path) -> None:
    """BART's head wants as many in each row of a batch: such rows are computed apart, and answered as alone."""
    rows = zoo.rows("classification", 0, 8)
    rows[3]["text"] += " </s> Karo"
    run = tuned("bart", "classification", tmp_path, rows)
    texts = [row["text"] for row in rows]
    together, alone = run.predict(texts), [run.predict([text])[0] for text in texts]
    for ours, single in zip(together, alone, strict=True):
        assert ours["probabilities"] == pytest.approx(single["probabilities"], abs=1e-5)


def test_a_separator_inside_a_context_is_named(tmp_path: Path) -> None:
    """Longformer's head for questions takes no other number of separators than the tokenizer's, not even alone."""
    rows = zoo.rows("qa", 0, 8)
    rows[3]["context"] += " </s> Karo"
    with pytest.raises(InputError, match="row 4"):
        tuned("longformer", "qa", tmp_path, rows)


def test_training_in_parts_of_equal_lengths(tmp_path: Path) -> None:
    """With no dropout a padded encoder learns the same from the parts as from the whole batch."""
    rows, losses = zoo.rows("classification", 0, 12), []
    for apart in (False, True):
        run = tuned("bert", "classification", tmp_path / str(apart), rows,
                    **{"dropout": 0.0, "batching.equal_lengths": apart, "batching.log_every": 1, "precision": "fp32"})  # fmt: skip
        losses.append([line["loss"] for line in run.log if "loss" in line])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
