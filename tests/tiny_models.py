"""Tiny random models of the architectures whose layers run without padding, and ragged batches for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers as tf
from torch import Tensor, nn

SIZES: dict[str, Any] = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,  # large, so that what attention sees matters
}
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
CONFIGS: dict[str, Callable[[], Any]] = {
    "Bert": lambda: tf.BertConfig(**SIZES),
    "Roberta": lambda: tf.RobertaConfig(**SIZES),
    "XLMRoberta": lambda: tf.XLMRobertaConfig(**SIZES),
    "DistilBert": lambda: tf.DistilBertConfig(
        vocab_size=60,
        dim=32,
        n_layers=2,
        n_heads=4,
        hidden_dim=40,
        max_position_embeddings=64,
        initializer_range=0.3,
    ),
    "Electra": lambda: tf.ElectraConfig(**SIZES, embedding_size=16),
    "Albert": lambda: tf.AlbertConfig(**SIZES, embedding_size=16),
    "Camembert": lambda: tf.CamembertConfig(**SIZES),
    # has no layer norm: larger weights grow from layer to layer until rounding errors outgrow the tolerance
    "MobileBert": lambda: tf.MobileBertConfig(
        **SIZES | {"initializer_range": 0.1},
        embedding_size=16,
        intra_bottleneck_size=16,
        num_feedforward_networks=2,
    ),
    "ModernBert": lambda: tf.ModernBertConfig(
        **SIZES, **SPECIAL, cls_token_id=1, sep_token_id=2, local_attention=8, global_attn_every_n_layers=2
    ),
    "Ernie": lambda: tf.ErnieConfig(**SIZES),
    "NomicBert": lambda: tf.NomicBertConfig(**SIZES),
    "EuroBert": lambda: tf.EuroBertConfig(**SIZES, **SPECIAL, mask_token_id=3, num_key_value_heads=2),
}


HEADS = ("SequenceClassification", "TokenClassification", "QuestionAnswering")


def plain(name: str, head: str, config: Any) -> Any:
    """A tiny random model, the same at each call."""
    torch.manual_seed(0)
    return getattr(tf, f"{name}For{head}")(config)


def build(name: str, head: str = "SequenceClassification", dropout: float = 0.0) -> Any:
    """A tiny random model in training mode; every dropout in it has the given rate."""
    model = plain(name, head, CONFIGS[name]()).train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = dropout
        if isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = dropout
    return model


def batch(lengths: list[int], left: bool = False) -> dict[str, Tensor]:
    """Random ids (rows, longest), padded with 1 where RoBERTa may pad, and their mask."""
    lengths_, longest = torch.tensor(lengths)[:, None], max(lengths)
    at = torch.arange(longest)
    mask = at >= longest - lengths_ if left else at < lengths_
    ids = torch.randint(4, 60, mask.shape, generator=torch.Generator().manual_seed(len(lengths)))
    return {"input_ids": ids.where(mask, 1), "attention_mask": mask.long()}


def tag_every_word(network: Any) -> None:
    """Makes a token classifier begin an entity at every word: what it answers says what it has read, however little it
    has learned."""
    begins = next(at for tag, at in network.config.label2id.items() if tag.startswith("B-"))
    network.classifier.weight.data.zero_()
    network.classifier.bias.data.zero_()
    network.classifier.bias.data[begins] = 9.0
