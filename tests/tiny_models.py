"""Tiny random models of the architectures whose layers run without padding, and ragged batches for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
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


def run(model: Any, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Logits on real tokens, loss, and all gradients in one row. The head's own loss where it has no padding in it;
    in question answering `transformers` takes the softmax over the padding too, so that loss is masked here."""
    model.zero_grad()
    mask = inputs["attention_mask"].bool()
    targets = torch.arange(mask.shape[0])
    if hasattr(model, "qa_outputs") or "QuestionAnswering" in type(model).__name__:
        output = model(**inputs)
        logits = torch.stack([output.start_logits, output.end_logits])
        spans = mask.int().argmax(1) + targets % mask.sum(1)
        loss = sum(F.cross_entropy(x.masked_fill(~mask, float("-inf")), spans) for x in logits)
        logits = logits[:, mask]
    elif "TokenClassification" in type(model).__name__:
        labels = (targets[:, None] + torch.arange(mask.shape[1])) % 2
        output = model(**inputs, labels=labels.where(mask, -100))
        loss, logits = output.loss, output.logits[mask]
    else:
        output = model(**inputs, labels=targets % 2)
        loss, logits = output.loss, output.logits
    loss.backward()
    grads = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    return logits.detach(), loss.detach(), torch.cat(grads)


def same(got: tuple[Tensor, ...], expected: tuple[Tensor, ...], tolerance: float = 1e-5) -> None:
    for name, ours, theirs in zip(("logits", "loss", "gradients"), got, expected, strict=True):
        assert ours.shape == theirs.shape
        scale = max(float(theirs.double().norm()), 0.01)  # a question about a single token has no loss at all
        error = float((ours - theirs).double().norm()) / scale
        assert error <= tolerance, f"{name}: relative error {error:.1e}"


def hooks(model: nn.Module) -> list[Any]:
    found = [(m._forward_pre_hooks, m._forward_hooks) for m in model.modules()]
    return [hook for pre, post in found for hook in (*pre.values(), *post.values())]


def tag_every_word(network: Any) -> None:
    """Makes a token classifier begin an entity at every word: what it answers says what it has read, however little it
    has learned."""
    begins = next(at for tag, at in network.config.label2id.items() if tag.startswith("B-"))
    network.classifier.weight.data.zero_()
    network.classifier.bias.data.zero_()
    network.classifier.bias.data[begins] = 9.0
