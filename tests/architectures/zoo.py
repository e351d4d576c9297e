"""The text models of transformers' three auto mappings, tiny and random, each with a tokenizer of its own kind."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers as tk
import torch
import transformers as tf
from transformers.models.auto import modeling_auto as auto

MAPS = {
    "classification": auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    "ner": auto.MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES,
    "qa": auto.MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES,
}
MAX, POSITIONS = 64, 128

# --- rows -----------------------------------------------------------------------------------------------------------

LENGTHS = (1, 2, 3, 4, 6, 9, 14, 22, 31, 60)  # words; the longest are cut, or read in windows, at MAX tokens
NAMES = {"Karo": "B-PER", "Lima": "B-PER", "Oslo": "B-LOC", "Nemi": "B-LOC"}


@functools.cache
def words() -> list[str]:
    """Eight thousand words of two or three syllables, names among them."""
    random = np.random.default_rng(0)
    syllables = [c + v for c in "bdfgklmnprst" for v in "aeiou"]
    vocabulary = ["".join(random.choice(syllables, random.integers(1, 4))) for _ in range(500)] + [
        *NAMES
    ] * 10
    return [str(word) for word in random.choice(vocabulary, 8000)]


def rows(family: str, first: int, many: int) -> list[dict[str, Any]]:
    """Rows `first` to `first + many` of a family, each opening with a name."""
    results = []
    for k in range(first, first + many):
        text = [[*NAMES][k % 4], *words()[67 * k :][: LENGTHS[k % len(LENGTHS)] - 1]]
        question = " ".join(["who", "is", "named", "in", "this", "text"][: 1 + k % 6])
        answer = {"text": [text[0]], "answer_start": [0]}
        results.append({
            "classification": {"text": " ".join(text), "label": "neg" if k % 2 else "pos"},
            "ner": {"tokens": text, "tags": [NAMES.get(word, "O") for word in text]},
            "qa": {"id": str(k), "question": question, "context": " ".join(text), "answers": answer},
        }[family])  # fmt: skip
    return results


def inputs(family: str, first: int, many: int) -> list[Any]:
    """Rows as `predict` takes them."""
    keys = {"classification": ["text"], "ner": ["tokens"], "qa": ["question", "context"]}[family]
    several = [tuple(row[key] for key in keys) for row in rows(family, first, many)]
    return several if family == "qa" else [one[0] for one in several]


# --- tokenizers -----------------------------------------------------------------------------------------------------


@functools.cache
def trained(kind: str, *first: str) -> str:
    """A WordPiece, byte-level BPE, Metaspace BPE or Unigram tokenizer of 400 pieces, as JSON; `first`: special tokens."""
    pre, t = tk.pre_tokenizers, tk.trainers
    options: dict[str, Any] = {"vocab_size": 400, "show_progress": False, "special_tokens": [*first]}
    unknown = "<unk>" if "<unk>" in first else None
    model, split, trainer = {
        "wp": (tk.models.WordPiece(unk_token="[UNK]"), pre.BertPreTokenizer(),
               t.WordPieceTrainer(**options | {"special_tokens": [*first] or ["[UNK]"]})),
        "bpe": (tk.models.BPE(), pre.ByteLevel(),
                t.BpeTrainer(initial_alphabet=pre.ByteLevel.alphabet(), **options)),
        "mbpe": (tk.models.BPE(), pre.Metaspace(), t.BpeTrainer(**options)),
        "uni": (tk.models.Unigram(), pre.Metaspace(), t.UnigramTrainer(unk_token=unknown, **options)),
    }[kind]  # fmt: skip
    tokenizer = tk.Tokenizer(model)
    tokenizer.pre_tokenizer = split
    if kind == "wp":
        tokenizer.normalizer = tk.normalizers.BertNormalizer(lowercase=True)
    texts = ["who is named in this text", *(" ".join(words()[i : i + 20]) for i in range(0, 8000, 20))]
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer.to_str()


def generic(kind: str, specials: dict[str, str], single: str, pair: str, **options: Any) -> Any:
    """What a checkpoint with nothing but tokenizer.json has; `single`, `pair`: templates of TemplateProcessing."""
    names = list(dict.fromkeys(specials.values()))
    tokenizer = tk.Tokenizer.from_str(trained(kind, *names))
    ids = [(name, tokenizer.token_to_id(name)) for name in names]
    tokenizer.post_processor = tk.processors.TemplateProcessing(single=single, pair=pair, special_tokens=ids)
    return tf.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **specials, **options)


def own(name: str, kind: str, **options: Any) -> Any:
    """The architecture's own tokenizer class with a vocabulary trained here, its special tokens first."""
    cls, model = getattr(tf, name), json.loads(trained(kind))["model"]
    blank = cls(**options)
    known = sorted(blank.get_vocab(), key=blank.get_vocab().get)
    first = list(dict.fromkeys([*known, *map(str, blank.special_tokens_map.values())]))
    if kind == "uni":
        pieces = [(piece, score) for piece, score in model["vocab"] if piece not in first]
        return cls(vocab=[(piece, 0.0) for piece in first] + pieces, **options)
    ordered = sorted(model["vocab"], key=model["vocab"].get)
    vocab = {piece: number for number, piece in enumerate(dict.fromkeys([*first, *ordered]))}
    merges = {} if kind == "wp" else {"merges": [tuple(merge) for merge in model["merges"]]}
    return cls(vocab=vocab, **merges, **options)


def of(name: str, kind: str, **options: Any) -> Callable[[], Any]:
    return functools.partial(own, name, kind, **options)


BERT = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
SENTENCE = {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
GPT = {"pad_token": "<|pad|>", "bos_token": "<|begin|>", "eos_token": "<|end|>"}
untyped = functools.partial(
    generic, "wp", BERT, "[CLS] $A [SEP]", "[CLS] $A [SEP] $B [SEP]",
    model_input_names=["input_ids", "attention_mask"],
)  # fmt: skip
typed = functools.partial(
    generic, "wp", BERT, "[CLS]:0 $A:0 [SEP]:0", "[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
    model_input_names=["input_ids", "token_type_ids", "attention_mask"],
)  # fmt: skip
gpt = functools.partial(generic, "bpe", GPT, "<|begin|> $A", "<|begin|> $A $B")
framed = functools.partial(
    generic,
    "bpe",
    GPT | {"mask_token": "<|mask|>"},
    "<|begin|> $A <|end|>",
    "<|begin|> $A <|end|> $B <|end|>",
)
eos = functools.partial(generic, "uni", SENTENCE, "$A </s>", "$A $B </s>")
plbart = functools.partial(
    generic, "uni", SENTENCE | {"mask_token": "__java__"}, "$A </s> __java__", "$A $B </s> __java__"
)

# --- architectures: tokenizer -> model type[+variant] -> what its config has beside SIZES -----------------------------

SIZES: dict[str, Any] = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 40,
    "max_position_embeddings": POSITIONS, "initializer_range": 0.2, "init_std": 0.2, "embed_init_std": 0.2,
    "num_key_value_heads": 2, "head_dim": 8, "embedding_size": 16, "sliding_window": 8, "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
}  # fmt: skip
NAMED = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "head_dim")
SEQ = {
    "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
    "encoder_ffn_dim": 40, "decoder_ffn_dim": 40,
}  # fmt: skip
T5 = {
    # its attention is not scaled: larger weights enlarge rounding errors beyond the tolerance
    "initializer_factor": 0.4, "decoder_start_token_id": 0, "d_model": 32, "d_kv": 8, "d_ff": 40, "num_layers": 2, "num_decoder_layers": 2,
    "num_heads": 4,
}  # fmt: skip
XLM = {"emb_dim": 32, "n_layers": 2, "n_heads": 4}
SPARSE = {"attention_type": "block_sparse", "block_size": 4, "num_random_blocks": 1}
OFF = {"max_position_embeddings": POSITIONS + 2}  # positions are counted from behind the padding's
DEBERTA = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]}
CANINE = {"downsampling_rate": 4, "local_transformer_stride": 8, "num_hash_buckets": 64}
PERCEIVER = {
    "d_latents": 32, "d_model": 32, "num_latents": 8, "num_blocks": 1, "num_self_attends_per_block": 1,
    "num_self_attention_heads": 4, "num_cross_attention_heads": 4,
}  # fmt: skip
REFORMER = {
    "axial_pos_shape": [8, 16], "axial_pos_embds_dim": [16, 16], "attention_head_size": 8, "feed_forward_size": 40,
    "hash_seed": 1, "attn_layers": ["local", "lsh"], "lsh_attn_chunk_length": 8, "local_attn_chunk_length": 8,
    "num_buckets": 4,
}  # fmt: skip
ROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}
COMPASS = {
    "rope_parameters": {"full_attention": ROPE, "sliding_attention": ROPE},
    "layer_types": ["sliding_attention", "full_attention"],
}
GEMMA = {
    key: SIZES[key] for key in (*NAMED, "num_key_value_heads", "sliding_window", "max_position_embeddings")
}
GEMMA |= {"query_pre_attn_scalar": 8}
BUCKETS = {"position_buckets": 8, "norm_rel_ebd": "layer_norm"}
LED = {
    "attention_window": 8, "max_encoder_position_embeddings": 2 * POSITIONS, "max_decoder_position_embeddings": POSITIONS
}  # fmt: skip
FUNNEL = {
    "block_sizes": [1, 2],
    "d_model": 32,
    "n_head": 4,
    "d_head": 8,
    "d_inner": 40,
    "num_decoder_layers": 1,
}
ENTITIES = {"[MASK]": 0, "[UNK]": 1, "[PAD]": 2, "[MASK2]": 3}
GROUPS: list[tuple[Callable[[], Any], dict[str, dict[str, Any]]]] = [
    (of("BertTokenizer", "wp"), {
        "bert": {}, "bros": {}, "convbert": {"conv_kernel_size": 5, "head_ratio": 2}, "distilbert": {"hidden_dim": 40},
        "electra": {}, "ernie": {"use_task_id": True}, "layoutlm": {}, "megatron-bert": {}, "nomic_bert": {},
        "mobilebert": {"initializer_range": 0.1, "intra_bottleneck_size": 16, "num_feedforward_networks": 2},
        "squeezebert": {"embedding_size": 32, "q_groups": 2, "k_groups": 2, "v_groups": 2}}),
    (of("RobertaTokenizer", "bpe"), {
        "roberta": OFF, "roberta-prelayernorm": OFF, "data2vec-text": OFF, "ibert": OFF,
        "lilt": OFF | {"hidden_size": 48}, "longformer": OFF | {"attention_window": 8}, "markuplm": {}, "mra": {},
        "bart": SEQ, "layoutlmv3": OFF | {"coordinate_size": 4, "shape_size": 8, "visual_embed": False}}),
    (of("AlbertTokenizer", "uni"), {
        "albert": {}, "nystromformer": {}, "yoso": {},
        "nystromformer+landmarks": {"num_landmarks": 8, "segment_means_seq_len": 64}}),
    (of("XLMRobertaTokenizer", "uni"), {
        "xlm-roberta": OFF, "xlm-roberta-xl": OFF, "gte": {}, "jina_embeddings_v3": {},
        "xmod": OFF | {"languages": ["en_XX"], "default_language": "en_XX"},
        "xmod+no language": OFF | {"languages": ["en_XX", "zh_CN"]}}),
    (untyped, {
        "modernbert": {"local_attention": 8, "global_attn_every_n_layers": 2},
        "modernbert-decoder": {"local_attention": 8}, "ultrabert": {"prediction_head_size": 16},
        "cohere_compass_text": COMPASS, "esm": {"position_embedding_type": "rotary"}, "esmc": {"num_key_value_heads": 4},
        "xlm": XLM, "flaubert": XLM, "perceiver": PERCEIVER}),
    (typed, {
        "roc_bert": {"pronunciation_vocab_size": 20, "shape_vocab_size": 20, "pronunciation_embed_dim": 8,
                     "shape_embed_dim": 8},
        "roformer": {"embedding_size": 32}, "canine": CANINE, "tapas": {}}),
    (gpt, {
        "gpt2": {}, "gpt_neox": {}, "opt": {"ffn_dim": 40, "word_embed_proj_dim": 32}, "llama": {}, "qwen3": {},
        "mistral": {}, "openai_privacy_filter": {"num_local_experts": 4, "num_experts_per_tok": 2}}),
    (framed, {"eurobert": {}}),
    (of("T5Tokenizer", "uni", extra_ids=2), {"t5": T5, "mt5": T5, "umt5": T5}),
    (of("BigBirdTokenizer", "uni"), {"big_bird": SPARSE, "big_bird+published": {}}),
    (of("GPT2Tokenizer", "bpe"), {"gpt2+no padding token": {}}),
    (eos, {"bigbird_pegasus": SEQ | SPARSE}),
    (of("GemmaTokenizer", "mbpe"), {
        "gemma2": {"query_pre_attn_scalar": 8}, "t5gemma": {"encoder": dict(GEMMA), "decoder": dict(GEMMA)}}),
    (of("Qwen2Tokenizer", "bpe"), {"qwen2": {}, "qwen2+no pad_token_id": {"pad_token_id": None}}),
    (of("DebertaV2Tokenizer", "uni"), {
        "deberta-v2": DEBERTA | BUCKETS, "deberta-v2+convolution": DEBERTA | {"conv_kernel_size": 3, "conv_act": "gelu"}}),
    (of("DebertaTokenizer", "bpe"), {"deberta": DEBERTA}),
    (of("CamembertTokenizer", "uni"), {"camembert": OFF}),
    (of("FNetTokenizer", "uni"), {"fnet": {}}),
    (of("MPNetTokenizer", "wp"), {"mpnet": OFF}),
    (of("SplinterTokenizer", "wp"), {"splinter": {}}),
    (of("FunnelTokenizer", "wp"), {"funnel": FUNNEL}),
    (of("RemBertTokenizer", "uni"), {"rembert": {"input_embedding_size": 16, "output_embedding_size": 16}}),
    (of("LukeTokenizer", "bpe", entity_vocab=ENTITIES), {"luke": OFF | {"entity_vocab_size": 4, "entity_emb_size": 16}}),
    (of("XLNetTokenizer", "uni"), {"xlnet": {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 40}}),
    (of("ReformerTokenizer", "mbpe", pad_token="<pad>"), {
        "reformer": REFORMER, "reformer+learned positions": REFORMER | {"axial_pos_embds": False}}),
    (of("MBartTokenizer", "uni"), {"mbart": SEQ}),
    (of("MvpTokenizer", "bpe"), {"mvp": SEQ}),
    (of("LEDTokenizer", "bpe"), {"led": SEQ | LED}),
    (plbart, {"plbart": SEQ}),
    # tokenizers without a Rust backend
    (lambda: tf.CanineTokenizer(), {"canine+own tokenizer": CANINE}),
    (lambda: tf.PerceiverTokenizer(), {"perceiver+own tokenizer": PERCEIVER}),
]  # fmt: skip
ZOO = {name: (make, config) for make, configs in GROUPS for name, config in configs.items()}
# that need more than text, or have no text in them
OTHER = ["layoutlmv2", "lxmert", "modernvbert", "ultravbert", "gemma3", "qwen3_5", "qwen3_asr", "t5gemma2"]
# decoders beyond the eight above
DECODERS = [
    "apertus", "arcee", "axk1", "axk2", "biogpt", "bloom", "ctrl", "deepseek_v2", "deepseek_v3", "diffllama",
    "doge", "exaone4", "falcon", "gemma", "gemma3_text", "glm", "glm4", "gpt-sw3", "gpt_bigcode", "gpt_neo",
    "gpt_oss", "gptj", "helium", "hunyuan_v1_dense", "hunyuan_v1_moe", "jamba", "jetmoe", "minicpm3", "minimax",
    "ministral", "ministral3", "mistral4", "mixtral", "mpt", "nemotron", "olmo", "olmo2", "olmo3", "openai-gpt",
    "persimmon", "phi", "phi3", "phimoe", "qwen2_moe", "qwen3_5_text", "qwen3_moe", "qwen3_next", "seed_oss",
    "smollm3", "stablelm", "starcoder2", "zamba", "zamba2",
]  # fmt: skip


def described(name: str) -> tuple[Any, Any]:
    """The config of a tiny model of an architecture, and the tokenizer that its checkpoints have."""
    make, changes = ZOO[name]
    kind, tokenizer = tf.CONFIG_MAPPING[name.split("+")[0]], make()
    tokenizer.model_max_length = POSITIONS
    blank = kind()
    names = ("pad", "bos", "eos", "cls", "sep", "mask", "question")
    ids = {f"{token}_token_id": getattr(tokenizer, f"{token}_token_id", None) for token in names}
    ids["pad_index"] = ids["pad_token_id"]
    ids = {key: value for key, value in ids.items() if value is not None and hasattr(blank, key)}
    sizes = {key: value for key, value in SIZES.items() if hasattr(blank, key) and getattr(blank, key) != -1}
    if changes.keys() & {"d_model", "encoder", "emb_dim"}:  # which have names of their own for these
        sizes = {key: value for key, value in sizes.items() if key not in NAMED}
    return kind(**sizes | {"vocab_size": max(len(tokenizer), 262)} | ids | changes), tokenizer


def checkpoint(name: str, folder: Path, mapping: Any = None) -> Path:
    """Saves a tiny random checkpoint of an architecture: the bare model, or the class that a mapping of `transformers` has
    for it. Its weights are shaken, so that no bias and no embedding of the padding is zero: what reads padding shows."""
    config, tokenizer = described(name)
    torch.manual_seed(0)
    if name.startswith("perceiver") and mapping is None:  # the bare model has no part that reads text
        model = tf.PerceiverForMaskedLM(config)
    else:
        cls = (tf.MODEL_MAPPING if mapping is None else mapping)[type(config)]
        model = (cls[0] if isinstance(cls, tuple) else cls)(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.05)
        for module in model.modules():
            if isinstance(module, torch.nn.Embedding) and module.padding_idx is not None:
                module.weight[module.padding_idx].normal_(0, 0.2)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
