"""What a model needs beyond rows of token ids: noted, settled or refused before anything is trained, by what
its forward takes and its configuration says."""

from __future__ import annotations

import inspect
import math
from typing import Any

from torch import nn

from bert_ft.engine.sharing import Sharing
from bert_ft.errors import InputError
from bert_ft.kernels import probing

# what a forward may take beside text and gets along without: then it has zeros, or nothing, in its place
BESIDE_TEXT = {
    "bbox": "boxes on a page",
    "pixel_values": "a picture",
    "image": "a picture",
    "xpath_tags_seq": "XPaths",
    "input_shape_ids": "shapes of characters",
    "input_pronunciation_ids": "pronunciations",
}
POSITIONS = (
    "max_position_embeddings",
    "max_encoder_position_embeddings",
    "max_decoder_position_embeddings",
    "num_hash_buckets",  # of CANINE's characters, and rows of its table of positions, too
)


def positions(network: Any) -> int | None:
    """How many tokens the model has positions for; None where it has no bound."""
    values = [getattr(network.config, name, None) or 0 for name in POSITIONS]
    bounds = [value for value in values if value > 0]  # XLNet says -1
    if not bounds:
        return None
    # RoBERTa counts positions from behind the padding's
    paddings = [
        module.padding_idx + 1
        for name, module in network.named_modules()
        if name.rpartition(".")[2] == "position_embeddings"
        and getattr(module, "padding_idx", None) is not None
    ]
    return min(bounds) - max(paddings, default=0)


def settle(network: Any, tokenizer: Any, max_length: int) -> tuple[Sharing, list[str]]:
    """What the model's configuration leaves open is settled for rows of at most `max_length` tokens, and
    stays so.

    Returns:
        which rows may share a batch, as far as the configuration says; notes for the user.
    Raises:
        InputError: a model that needs what rows of text do not have.
    """
    config = network.config
    notes: list[str] = []
    _refuse(config)
    if getattr(config, "pad_token_id", None) is None:
        config.pad_token_id = tokenizer.pad_token_id
        notes.append(
            "the model's config.json names no padding token; the tokenizer's is used: "
            f"'{tokenizer.pad_token}'"
        )
    parameters = inspect.signature(network.forward).parameters
    absent = list(dict.fromkeys(what for name, what in BESIDE_TEXT.items() if name in parameters))
    if absent:
        notes.append(
            f"this model can also read {' and '.join(absent)}; here it gets text alone, as transformers "
            "would give it"
        )
    width = _width(config, max_length)
    if hasattr(config, "num_random_blocks") and hasattr(config, "attention_type"):
        width, note = _sparse(network, max_length)
        notes.append(note)
    return Sharing(width=width), notes


def _refuse(config: Any) -> None:
    """Refuses what rows of text don't have, or this machine can't compute, as far as the configuration
    says."""
    problem = remedy = ""
    if len(getattr(config, "type_vocab_sizes", None) or []) > 1:
        kinds = len(config.type_vocab_sizes)
        problem = (
            f"it reads tables: a token has {kinds} types (row, column, rank, ...), but text has only one"
        )
    elif getattr(config, "axial_pos_embds", False):
        size = math.prod(config.axial_pos_shape)
        problem = (
            f"its axial positions can only be trained on rows of exactly {size:,} tokens (axial_pos_shape)"
        )
        remedy = "use a checkpoint with axial_pos_embds = false"
    elif "lsh" in (getattr(config, "attn_layers", None) or []) and getattr(config, "hash_seed", None) is None:
        problem = "it hashes at random, so the same row gets different answers: hash_seed is not set"
        remedy = "set hash_seed in its config.json"
    elif getattr(config, "segment_means_seq_len", 0) != getattr(config, "num_landmarks", 0):
        problem = (
            "its landmark attention takes no mask in transformers, so rows can't be padded (num_landmarks)"
        )
        remedy = "use a checkpoint whose num_landmarks equals its segment_means_seq_len"
    elif getattr(config, "languages", None) and not getattr(config, "default_language", "?"):
        problem = (
            "it has an adapter for each language, and does not say which one to use: "
            "default_language is not set"
        )
        remedy = "set default_language in its config.json, one of " + ", ".join(config.languages[:20])
    if problem:
        raise InputError(problem, where=config.model_type, remedy=remedy or "use a text encoder")


def _width(config: Any, max_length: int) -> int | None:
    """What batches are padded to at least: CANINE's pooling needs as much; Reformer trains on whole chunks,
    and its first long batch decides how many buckets it hashes into."""
    chunks = [
        size
        for kind in ("lsh", "local")
        if kind in (getattr(config, "attn_layers", None) or [])
        if (size := getattr(config, f"{kind}_attn_chunk_length", None))
    ]
    if chunks and max_length > min(chunks):
        return math.ceil(max_length / math.lcm(*chunks)) * math.lcm(*chunks)
    rate: int | None = getattr(config, "downsampling_rate", None)
    return rate


def _sparse(network: Any, max_length: int) -> tuple[int | None, str]:
    """BigBird changes to full attention for good at the first batch that is too short for block-sparse
    attention: here the longest row that there can be decides, for all; returns what block-sparse rows are
    padded to, and a line."""
    config = network.config
    shortest = probing.shortest_sparse(config) - 1
    if config.attention_type == "block_sparse" and max_length > shortest:
        return (
            max_length,
            f"block-sparse attention: every row is padded to {max_length} positions, since its pattern "
            "depends on the width",
        )
    if config.attention_type == "block_sparse":
        outer = next((m for m in network.modules() if _changes_attention(m)), None)
        if outer is not None:
            outer.set_attention_type("original_full")
        config.attention_type = "original_full"
        return (
            None,
            f"full attention for all rows: block-sparse attention needs more than {shortest} tokens, and "
            f"max_length is {max_length}",
        )
    return None, "full attention for all rows"


def _changes_attention(module: nn.Module) -> bool:
    return callable(getattr(module, "set_attention_type", None))
