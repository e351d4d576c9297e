"""What a model needs beyond rows of token ids: told, settled from its configuration, or refused, by what its forward
takes and its configuration says, before anything is trained."""

from __future__ import annotations

import inspect
import math
from typing import Any

from torch import nn

from bert_ft.engine.sharing import Sharing
from bert_ft.errors import InputError

# what a forward may take beside text and gets along without: then it has zeros, or nothing, in its place
BESIDE_TEXT = {
    "bbox": "boxes on a page",
    "pixel_values": "a picture",
    "image": "a picture",
    "xpath_tags_seq": "XPaths",
    "input_shape_ids": "shapes of characters",
    "input_pronunciation_ids": "pronunciations",
}
POSITIONS = ("max_position_embeddings", "max_encoder_position_embeddings", "max_decoder_position_embeddings")


def positions(network: Any) -> int | None:
    """How many tokens the model has positions for; None where it has no bound."""
    bounds = [value for name in POSITIONS if (value := getattr(network.config, name, None) or 0) > 0]  # XLNet says -1
    if not bounds:
        return None
    # RoBERTa counts positions from behind the padding's
    paddings = [
        module.padding_idx + 1
        for name, module in network.named_modules()
        if name.rpartition(".")[2] == "position_embeddings" and getattr(module, "padding_idx", None) is not None
    ]
    return min(bounds) - max(paddings, default=0)


def settle(network: Any, tokenizer: Any, max_length: int) -> tuple[Sharing, list[str]]:
    """What the model's configuration leaves open is settled for rows of at most `max_length` tokens, and stays so.

    Returns:
        which rows may share a batch, as far as the configuration tells; lines for the user.
    Raises:
        InputError: a model that needs what rows of text do not have.
    """
    config, notes = network.config, list[str]()
    _refuse(config)
    if getattr(config, "pad_token_id", None) is None:
        config.pad_token_id = tokenizer.pad_token_id
        notes.append(f"the model's padding token is the tokenizer's, '{tokenizer.pad_token}': its config.json names none")
    taken = inspect.signature(network.forward).parameters
    absent = list(dict.fromkeys(what for name, what in BESIDE_TEXT.items() if name in taken))
    if absent:
        notes.append(f"this model also reads {' and '.join(absent)}: of text alone it gets none, here as in transformers")
    end = None
    if config.is_encoder_decoder and "SequenceClassification" in type(network).__name__:
        end = getattr(config, "eos_token_id", None)  # BART's head looks for it and must find as many in each row
    width = _landmarks(config, max_length)
    if hasattr(config, "num_random_blocks") and hasattr(config, "attention_type"):
        width, told = _sparse(network, max_length)
        notes.append(told)
    return Sharing(end_token=end if isinstance(end, int) else None, width=width), notes


def _refuse(config: Any) -> None:
    """Refuses what rows of text can't give, or this machine can't compute, as far as the configuration tells."""
    problem = remedy = ""
    if len(getattr(config, "type_vocab_sizes", None) or []) > 1:
        kinds = len(config.type_vocab_sizes)
        problem = f"it reads tables: {kinds} token types a token (row, column, rank, ...), where text has one"
    elif getattr(config, "axial_pos_embds", False):
        size = math.prod(config.axial_pos_shape)
        problem = f"its axial positions can be trained on rows of exactly {size:,} tokens only (axial_pos_shape)"
        remedy = "a checkpoint with axial_pos_embds = false"
    elif "lsh" in (getattr(config, "attn_layers", None) or []):
        for key, why in (("hash_seed", "it hashes at random"), ("num_buckets", "its first long row decides how it hashes")):
            if getattr(config, key, None) is None:
                problem = f"{why}, so that an answer is no function of its row: {key} is not set"
                remedy = f"set {key} in its config.json"
    elif getattr(config, "languages", None) and not getattr(config, "default_language", "?"):
        problem = "it has an adapter for each language, and does not say which one to use: default_language is not set"
        remedy = "set default_language in its config.json, one of " + ", ".join(config.languages[:20])
    if problem:
        raise InputError(problem, where=config.model_type, remedy=remedy or "take an encoder of text")


def _landmarks(config: Any, max_length: int) -> int | None:
    """Nystromformer with fewer landmarks than positions averages segments of rows of one length, that of its config."""
    size: int | None = getattr(config, "segment_means_seq_len", None)
    if size is None or getattr(config, "num_landmarks", size) == size:
        return None
    if max_length > size:
        raise InputError(f"its attention averages rows of {size} tokens (segment_means_seq_len)", where=config.model_type,
                         remedy=f"--set max_length={size}")  # fmt: skip
    return size


def _sparse(network: Any, max_length: int) -> tuple[int | None, str]:
    """BigBird changes to full attention for good at the first batch that is too short for block-sparse attention: here
    the longest row that there can be decides, for all; gives what block-sparse rows are padded to, and a line."""
    config = network.config
    shortest = (5 + 2 * config.num_random_blocks) * config.block_size
    if config.attention_type == "block_sparse" and max_length > shortest:
        return max_length, f"block-sparse attention, every row padded to {max_length} positions: its pattern follows the width"
    if config.attention_type == "block_sparse":
        outer = next((m for m in network.modules() if _changes_attention(m)), None)
        if outer is not None:
            outer.set_attention_type("original_full")
        config.attention_type = "original_full"
        return None, f"full attention, of all rows: block-sparse takes more than {shortest} tokens, max_length is {max_length}"
    return None, "full attention, of all rows"


def _changes_attention(module: nn.Module) -> bool:
    return callable(getattr(module, "set_attention_type", None))
