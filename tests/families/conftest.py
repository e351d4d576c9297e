"""Tokenizers of every kind, trained on the project's own prose and on a few words of other scripts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
OTHERS = ["東京 は 日本 の 首都 です", "Москва столица России", "שלום עולם", "مرحبا بالعالم", "naïve café Köln Ångström",
          "😀 👍🏽 ♥ ™ €5"] * 9  # fmt: skip
KINDS = ("wordpiece uncased", "wordpiece cased", "byte-level bpe", "unigram")


def trained(kind: str) -> Any:
    """A tokenizer of `transformers`, as BERT, RoBERTa and XLM-R have them."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import BertTokenizerFast, PreTrainedTokenizerFast, RobertaTokenizerFast

    prose = (ROOT / "README.md").read_text(encoding="utf-8") + (ROOT / "CONTRIBUTING.md").read_text(
        encoding="utf-8"
    )
    text = [*prose.splitlines(), *OTHERS]
    if kind.startswith("wordpiece"):
        from tokenizers import BertWordPieceTokenizer

        pieces = BertWordPieceTokenizer(lowercase=kind.endswith("uncased"))
        pieces.train_from_iterator(text, vocab_size=900, show_progress=False)
        return BertTokenizerFast(
            tokenizer_object=pieces._tokenizer, do_lower_case=kind.endswith("uncased"), model_max_length=64
        )
    special = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>", "cls_token": "<s>",
               "sep_token": "</s>", "mask_token": "<mask>"}  # fmt: skip
    names = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    if kind == "unigram":
        backend = Tokenizer(models.Unigram())
        backend.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace("\u200b", "")])
        backend.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=700, special_tokens=names, unk_token="<unk>", show_progress=False
        )
        backend.train_from_iterator(text, trainer)
        ids = [("<s>", backend.token_to_id("<s>")), ("</s>", backend.token_to_id("</s>"))]
        backend.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=ids)
        return PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=64, **special)
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(text, trainers.BpeTrainer(vocab_size=700, special_tokens=names, initial_alphabet=alphabet,
                                                          show_progress=False))  # fmt: skip
    import json

    model = json.loads(backend.to_str())["model"]
    return RobertaTokenizerFast(
        vocab=model["vocab"], merges=[tuple(m) for m in model["merges"]], model_max_length=64
    )


@pytest.fixture(scope="session", params=KINDS)
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return trained(request.param)
