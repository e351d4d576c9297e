"""Token types of pairs: where the model has more than one, the tokenizer sets them."""

from __future__ import annotations

import inspect
from typing import Any

from bert_ft.families import fast_tokenizer

# Architectures whose published tokenizers (transformers 4, create_token_type_ids_from_sequences) number the
# texts of a pair -> the type of the token that stands for the whole.
TYPED = {
    "albert": 0, "big_bird": 0, "rembert": 0, "splinter": 0, "nystromformer": 0, "yoso": 0, "fnet": 0,
    "funnel": 2, "xlnet": 2,
}  # fmt: skip
# these compare types and have no embeddings of them, so no number of them either
UNCOUNTED = ("funnel", "xlnet")
# tokenizer classes of architectures pretrained without types, whatever number their configuration has
UNTYPED = (
    "RobertaTokenizer", "XLMRobertaTokenizer", "CamembertTokenizer", "LukeTokenizer", "LayoutLMv3Tokenizer",
)  # fmt: skip


def set_types(tokenizer: Any, network: Any, pairs: bool) -> list[str]:
    """Lets the tokenizer set token types where the model was pretrained with them, also once it is saved;
    returns what the user should know of it.

    `transformers` 5 leaves `token_type_ids` out for ALBERT, BigBird, RemBERT, Funnel, XLNet, Splinter,
    Nystromformer, HerBERT and every BERT whose tokenizer is a bare `PreTrainedTokenizerFast`: both texts of a
    pair would be of type 0. A model that bert-ft saved, and a tokenizer whose configuration names its
    `model_input_names`, stay as they are.

    Args:
        pairs: whether the rows are pairs, for which it makes a difference.
    """
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        return []
    parameters = inspect.signature(network.forward).parameters
    config = network.config
    plain = [name for name in tokenizer.model_input_names if name != "token_type_ids"]
    kind = config.model_type
    size = getattr(config, "type_vocab_size", None)
    stated = "model_input_names" in tokenizer.init_kwargs or getattr(config, "bert_ft", None) is not None
    names = list(tokenizer.model_input_names)
    notes: list[str] = []
    if "token_type_ids" in names:
        if "token_type_ids" not in parameters and "input_ids" in parameters:
            names = plain
        elif size and _types(tokenizer) >= size:
            names = plain
            notes = [
                f"no token types are used: the model has {size}, but its tokenizer's template has "
                f"{_types(tokenizer) + 1}"
            ]
    elif not stated and "token_type_ids" in parameters and _was_typed(config, tokenizer):
        names = [plain[0], "token_type_ids", *plain[1:]]
        if not _types(tokenizer):
            _number(tokenizer, TYPED[kind])
        if pairs:
            notes = [
                f"the texts of a pair get token types, as in the pretraining of {kind}; transformers "
                "leaves them out"
            ]
    tokenizer.model_input_names = tokenizer.init_kwargs["model_input_names"] = names  # the latter is saved
    return notes


def _was_typed(config: Any, tokenizer: Any) -> bool:
    """Whether a model with this configuration was pretrained with types that its tokenizer's template sets,
    or its architecture's published tokenizer set."""
    kind = config.model_type
    size = getattr(config, "type_vocab_size", None) or 0
    largest = max(_types(tokenizer), TYPED.get(kind, 0), int(kind in TYPED))
    if _published(kind) in UNTYPED or not largest:
        return False
    return kind in UNCOUNTED or largest < size


def _published(kind: str) -> str | None:
    """The tokenizer class of a model type."""
    from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES

    name: str | None = TOKENIZER_MAPPING_NAMES.get(kind)
    return name


def _types(tokenizer: Any) -> int:
    """The largest token type that the template sets in a pair of texts."""
    with fast_tokenizer.whole(tokenizer) as backend:
        return max(backend.encode("a", "b").type_ids, default=0)


def _number(tokenizer: Any, whole: int) -> None:
    """Sets types into a template that has none: 0 for the first text and what stands around it, 1 for the
    second and what stands behind it, `whole` for the token of the whole."""
    from tokenizers.processors import TemplateProcessing

    templates = []
    used: dict[str, int] = {}
    for texts in (1, 2):
        frame = fast_tokenizer.frame(tokenizer, texts)
        ids = frame.columns["input_ids"].tolist()
        pieces: list[str] = []
        for number, (start, length) in enumerate(frame.parts):
            for i in ids[start : start + length]:
                token = tokenizer.convert_ids_to_tokens(i)
                kind = whole if token == tokenizer.cls_token else max(0, number - 1)
                pieces.append(f"{token}:{kind}")
                used[token] = i
            if number < texts:
                pieces.append(f"${'AB'[number]}:{number}")
        templates.append(pieces)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=templates[0], pair=templates[1], special_tokens=list(used.items())
    )
