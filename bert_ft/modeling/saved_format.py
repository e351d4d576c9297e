"""What stands in `model/` beside what `transformers` 5 writes, so that older readers open it too.

Version 4 of `transformers` calls some things otherwise, or takes them from `tokenizer_config.json` where 5
takes them from `tokenizer.json`; where a name is missing it does not fail but takes its default, and computes
something else. Each file gets both names. `sentence-transformers` takes the activation behind a classifier
from its config.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SAME = {
    "albert", "bart", "bert", "big_bird", "bigbird_pegasus", "camembert", "convbert", "data2vec-text",
    "deberta", "deberta-v2", "distilbert", "electra", "ernie", "flaubert", "fnet", "funnel", "ibert",
    "layoutlm", "layoutlmv3", "led", "lilt", "longformer", "markuplm", "mbart", "megatron-bert",
    "mobilebert", "modernbert", "mpnet", "mt5", "mvp", "nystromformer", "plbart", "rembert",
    "roberta", "roberta-prelayernorm", "roc_bert", "roformer", "splinter", "squeezebert", "t5", "umt5",
    "xlm", "xlm-roberta", "xlm-roberta-xl", "xlnet", "xmod", "yoso",
}  # fmt: skip
"""The architectures of which `transformers` 4.57 gives the same logits, by test_older_readers.py; others were
not tried with it, or are unknown to it."""

CONFIG, TOKENIZER, TOKENIZER_CONFIG = "config.json", "tokenizer.json", "tokenizer_config.json"
ROTATIONS = {"full_attention": "global_rope_theta", "sliding_attention": "local_rope_theta"}
"""ModernBERT's kinds of layers, and what 4 calls the base of their rotary positions."""

OVERRULED = {
    "normalizer": {
        "do_lower_case": "lowercase",
        "strip_accents": "strip_accents",
        "tokenize_chinese_chars": "handle_chinese_chars",
    },
    "pre_tokenizer": {"add_prefix_space": "add_prefix_space"},
    "post_processor": {"trim_offsets": "trim_offsets"},
}
"""Part of tokenizer.json -> key of tokenizer_config.json that overrules it in 4 -> its name in that part."""

LINEAR, SIGMOID = "torch.nn.modules.linear.Identity", "torch.nn.modules.activation.Sigmoid"
ACTIVATIONS = {"regression": LINEAR, "multi_label_classification": SIGMOID}
"""What a CrossEncoder has to apply to the logits to give what `predict` gives."""


def complete_config(folder: Path, config: Any) -> None:
    """Adds to a saved config.json what other readers need; `config` is the model's."""
    saved = _read(folder / CONFIG)
    # two labels without names are left out as the general default: a BART, whose own default is three, would
    # get another head
    saved |= {"id2label": config.id2label, "label2id": config.label2id}
    if dtype := saved.get("dtype"):
        saved["torch_dtype"] = dtype  # its name before 4.56
    saved |= _positions(saved)
    if str((saved.get("architectures") or [""])[0]).endswith("ForSequenceClassification"):
        _activation(saved)
    _write(folder / CONFIG, saved)


def complete_tokenizer(folder: Path) -> None:
    """Adds to a saved tokenizer_config.json what other readers need."""
    saved = _read(folder / TOKENIZER_CONFIG)
    parts = _read(folder / TOKENIZER)
    for key in ("is_local", "local_files_only"):  # from where it was loaded here
        saved.pop(key, None)
    if saved.get("tokenizer_class") == "TokenizersBackend":  # 5's name of what 4 calls so; 5 knows both
        saved["tokenizer_class"] = "PreTrainedTokenizerFast"
    if isinstance(saved.get("extra_special_tokens"), list):  # of which 4 takes a table alone
        saved["additional_special_tokens"] = saved.pop("extra_special_tokens")
    for part, names in OVERRULED.items():
        state = parts.get(part) or {}
        saved |= {key: state[name] for key, name in names.items() if name in state}
    _write(folder / TOKENIZER_CONFIG, saved)


def older(folder: Path) -> str:
    """What `transformers` 4.57 makes of a saved folder, as a sentence of Markdown."""
    limit = _limit(_read(folder / CONFIG))
    return limit or "`transformers` 4.57 reads this folder too, and computes the same."


def _limit(saved: dict[str, Any]) -> str | None:
    """Why 4.57 may compute something else from a config; None: it computes the same."""
    kind = str(saved.get("model_type"))
    if kind not in SAME:
        return (
            "It was saved by version 5 of `transformers`. Whether older ones read it was not tried with this "
            "architecture."
        )
    if kind != "modernbert":
        return None
    if saved.get("layer_types") and _every(saved["layer_types"]) is None:
        why = "can't express which of its layers attend to the whole text"
    elif len({json.dumps(_scaling(saved["rope_parameters"][kind])) for kind in ROTATIONS}) > 1:
        why = "scale the positions of all layers alike"
    else:
        return None
    return (
        f"It needs version 5 of `transformers`: older ones {why}; they read the folder without a complaint "
        "and answer wrongly."
    )


def _positions(saved: dict[str, Any]) -> dict[str, Any]:
    """The rotary positions of a config as 4 calls them, and its kinds of layers; empty where it has none."""
    rotary = saved.get("rope_parameters")
    if not isinstance(rotary, dict):
        return {}
    if "rope_theta" in rotary:
        flat = {"rope_theta": rotary["rope_theta"]}
        return flat | ({"rope_scaling": scaling} if (scaling := _scaling(rotary)) else {})
    if saved.get("model_type") != "modernbert":
        return {}
    flat = {name: rotary[kind]["rope_theta"] for kind, name in ROTATIONS.items()}
    scaled = [_scaling(rotary[kind]) for kind in ROTATIONS]
    if scaled[0] and scaled[0] == scaled[1]:
        flat["rope_scaling"] = scaled[0]
    every = _every(saved.get("layer_types") or [])
    return flat if every is None else flat | {"global_attn_every_n_layers": every}


def _scaling(rotary: dict[str, Any]) -> dict[str, Any]:
    """How positions are scaled, without their base; empty where they are not."""
    if rotary.get("rope_type", "default") == "default":
        return {}
    return {key: value for key, value in rotary.items() if key != "rope_theta"}


def _every(kinds: list[str]) -> int | None:
    """The n for which every n-th layer, from the first on, attends to the whole text, and no other; None:
    there is none."""
    for n in range(1, len(kinds) + 1):
        if all((kind == "full_attention") == (i % n == 0) for i, kind in enumerate(kinds)):
            return n
    return None


def _activation(saved: dict[str, Any]) -> None:
    """Names what a CrossEncoder applies, in its versions from 4 on and before; a checkpoint's own may be for
    another head."""
    own = dict(saved.pop("sentence_transformers", None) or {})
    own.pop("activation_fn", None)
    saved.pop("sbert_ce_default_activation_function", None)
    if (activation := ACTIVATIONS.get(str(saved.get("problem_type")))) is not None:
        own["activation_fn"] = activation
        saved["sbert_ce_default_activation_function"] = activation
    if own:
        saved["sentence_transformers"] = own


def _read(file: Path) -> dict[str, Any]:
    tree: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return tree


def _write(file: Path, tree: dict[str, Any]) -> None:
    text = json.dumps(tree, indent=2, sort_keys=True, ensure_ascii=False)
    file.write_text(text + "\n", encoding="utf-8")
