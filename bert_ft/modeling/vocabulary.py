"""The checkpoint's own tokenizer: that of its `tokenizer.json`, with the token types that its architecture
was pretrained with.

`transformers` chooses a tokenizer's class by the model's type and may build the Rust tokenizer anew, by the
class's defaults instead of the file's: a cased BERT is lower-cased where its configuration is silent, a
WordPiece file under the type of a byte-level model becomes garbage. So both are read and compared on the
texts at hand.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

from bert_ft.config.schema import RunSpec
from bert_ft.errors import InputError
from bert_ft.families import fast_tokenizer
from bert_ft.modeling import remote_code
from bert_ft.modeling.loading_errors import loading_errors
from bert_ft.modeling.pretrained import locate

VOCABULARIES = (
    "tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model",
    "spm.model",
)  # fmt: skip
# Texts in which tokenizers differ: capitals, accents in both forms, Chinese, other scripts, digits,
# punctuation, spaces, full-width forms, ligatures, quotes, symbols.
PROBES = (
    "Hello World, the Quick brown FOX isn't lazy: 3.14 + 1,024 = 50% (A/B) [x] {y} <z> a_b-c e@x.org #1 & "
    "more!?",
    "Café naïve Zürich Ångström cafe\u0301 Œuvre ﬁne ①② ＡＢＣ１２３ “so” ``it'' ‘goes’ – and — … €5 ½ x²",
    "这家酒店的服务很好，价格2008元。北京NBA比赛 繁體中文 東京に行く。カタカナ 서울에서",
    "Привет Ёлка Ελλάδα שלום مرحبا हिन्दी ไทย Việt Nam 😀👍🏽",
    "two  spaces\tand a tab\nand a line  \u00a0 a no-break space \u3000 the end ",
)
SPECIAL = {  # what a special token is usually called, where the configuration does not name it
    "pad_token": ("[PAD]", "<pad>"), "unk_token": ("[UNK]", "<unk>"), "cls_token": ("[CLS]", "<s>", "<cls>"),
    "sep_token": ("[SEP]", "</s>", "<sep>"), "mask_token": ("[MASK]", "<mask>"),
}  # fmt: skip
# key of tokenizer_config.json -> attribute of BertNormalizer: what `transformers` lets overrule the file
NORMALIZER = {
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
}
CASED = 0.05  # share of a vocabulary's tokens with capitals from which it is one of a cased checkpoint
# settings that padding and truncation leave behind
FROM_FILE = ("max_length", "stride", "truncation_strategy", "pad_to_multiple_of")


def load(
    run: RunSpec, checkpoint: str, texts: Sequence[str] = (), trusted: Sequence[str] = ()
) -> tuple[Any, list[str]]:
    """The checkpoint's own fast tokenizer, which neither pads nor truncates by itself, and what the user
    should know of it.

    `AutoTokenizer` and the checkpoint's `tokenizer.json` are compared on `PROBES` and on `texts`, the first
    that are to be encoded; `trusted` is what this call names to run code from. Where they differ the file's
    is returned, as a `PreTrainedTokenizerFast`, which `AutoTokenizer` reads as it is once it is saved.

    Raises:
        InputError: no tokenizer there, or one that can't be read; a file that leaves the special tokens to a
            class which knows others.
    """
    from transformers import AutoTokenizer

    where = locate(checkpoint)
    if Path(where).is_dir() and not any((Path(where) / name).is_file() for name in VOCABULARIES):
        _refuse_letters(where)
        remedy = "copy tokenizer.json and tokenizer_config.json of the pretrained checkpoint into it"
        raise InputError("the folder has no tokenizer", where=where, remedy=remedy)
    options: dict[str, Any] = {"revision": run.revision or "main"}
    with loading_errors(where):
        options["trust_remote_code"] = remote_code.allowed(where, options["revision"], trusted)
        tokenizer: Any = None
        try:
            tokenizer = AutoTokenizer.from_pretrained(where, **options)
        except Exception:  # whatever a class of another kind makes of the file
            if _file(where, run.revision) is None:  # nothing else to read
                raise
        notes: list[str] = []
        file = _file(where, run.revision)
        if file is not None and (tokenizer is None or _rebuilds(tokenizer)):
            tokenizer, notes = _checked(tokenizer, where, file, options, texts)
    if getattr(tokenizer, "backend_tokenizer", None) is not None:
        tokenizer.backend_tokenizer.no_padding()
        tokenizer.backend_tokenizer.no_truncation()
        for key in FROM_FILE:
            tokenizer.init_kwargs.pop(key, None)
        notes += [*_unframed(tokenizer), *_unreachable(tokenizer)]
    return tokenizer, notes


def _refuse_letters(where: str) -> None:
    """Refuses a tokenizer that needs no file, since it reads characters or bytes: those have no Rust form."""
    from transformers import AutoTokenizer

    with loading_errors(where), suppress(OSError, ValueError, KeyError, TypeError):
        tokenizer = AutoTokenizer.from_pretrained(where, trust_remote_code=False)
        if getattr(tokenizer, "backend_tokenizer", None) is not None:
            return  # an empty one of a class that needs files
        raise InputError(
            f"its tokenizer ({type(tokenizer).__name__}) reads characters or bytes, and has no fast (Rust) "
            "form",
            where=where,
            remedy="use a checkpoint with a tokenizer.json",
        )


def _file(where: str, revision: str | None) -> Path | None:
    """The checkpoint's tokenizer.json, where it has one."""
    from huggingface_hub import try_to_load_from_cache

    if Path(where).is_dir():
        file = Path(where) / "tokenizer.json"
        return file if file.is_file() else None
    cached = try_to_load_from_cache(where, "tokenizer.json", revision=revision)
    return Path(cached) if isinstance(cached, str) else None


def _rebuilds(tokenizer: Any) -> bool:
    """Whether its class may be another tokenizer than the file: one of `transformers` with an `__init__` of
    its own, or that lacks its special tokens. Code that the user trusts may do what no file says."""
    from transformers import PreTrainedTokenizerFast

    if not type(tokenizer).__module__.startswith("transformers."):
        return False
    return type(tokenizer).__init__ is not PreTrainedTokenizerFast.__init__ or tokenizer.pad_token is None


def _checked(
    tokenizer: Any, where: str, file: Path, options: dict[str, Any], texts: Sequence[str]
) -> tuple[Any, list[str]]:
    """The tokenizer that `transformers` chose (None: it could not) where it encodes as the file does, else
    the file's."""
    own, notes = _of_file(tokenizer, where, file, options)
    name = type(tokenizer).__name__
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        what = "can't be loaded" if tokenizer is None else "has no Rust tokenizer"
        return own, [
            f"tokenizer: tokenizer.json is used as it is; the class that transformers names {what}",
            *notes,
        ]
    text = _difference(tokenizer, own, texts)
    if text is None and tokenizer.pad_token is None and own.pad_token is not None:
        names = ", ".join(str(name) for name in own.special_tokens_map.values())
        return own, [
            *notes,
            f"tokenizer: no tokenizer_config.json names its special tokens; these are used: {names}",
        ]
    if text is None:
        return tokenizer, notes
    message = (
        f"tokenizer: tokenizer.json is used as it is; {name} of transformers would encode {text} differently"
    )
    return own, [message, *notes, *_misread(where, options)]


def _of_file(tokenizer: Any, where: str, file: Path, options: dict[str, Any]) -> tuple[Any, list[str]]:
    """The file's tokenizer with the special tokens and settings that stand beside it, and notes on these."""
    from transformers import PreTrainedTokenizerFast

    tree = json.loads(file.read_text(encoding="utf-8"))
    try:
        own = PreTrainedTokenizerFast.from_pretrained(where, **options)
    except Exception as error:  # the bindings raise nothing narrower
        raise ValueError(f"tokenizer.json: {error}") from error
    added = {str(token): token for token in own.added_tokens_decoder.values()}
    names = _special_names(tokenizer, own, tree["model"].get("unk_token"))
    own.add_special_tokens(
        {key: added.get(name, name) for key, name in names.items() if getattr(own, key) is None}
    )
    for key in ("model_input_names", "padding_side", "truncation_side"):
        if tokenizer is not None and key not in own.init_kwargs:
            setattr(own, key, getattr(tokenizer, key))
            if key != "model_input_names":  # which `set_types` decides on
                own.init_kwargs[key] = getattr(own, key)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if tree.get("post_processor") is None and backend is not None:
        frame = fast_tokenizer.frame(tokenizer, 2).columns["input_ids"].tolist()
        if any(own.backend_tokenizer.id_to_token(i) != backend.id_to_token(i) for i in frame):
            message = (
                "tokenizer.json does not say which special tokens to add, and those of "
                f"{type(tokenizer).__name__} are not in it"
            )
            remedy = "save it with a post_processor, such as TemplateProcessing of [CLS] and [SEP]"
            raise InputError(message, where=where, remedy=remedy)
        own.backend_tokenizer.post_processor = backend.post_processor
    return own, _settings(own)


def _special_names(tokenizer: Any, own: Any, unknown: str | None) -> dict[str, str]:
    """Special tokens that the file's vocabulary holds: as its template and model have them, else as the class
    of `transformers` calls them, else as they are usually called."""
    with fast_tokenizer.whole(own) as backend:
        probe = backend.encode("a")
    text_places = [number for number, owner in enumerate(probe.sequence_ids) if owner is not None]
    preferred: dict[str, list[Any]] = {key: [] for key in SPECIAL} | {"unk_token": [unknown]}
    if text_places:
        preferred["cls_token"] = probe.tokens[: text_places[0]][:1]
        preferred["sep_token"] = probe.tokens[text_places[-1] + 1 :][:1]
    names: dict[str, str] = {}
    for key, usual in SPECIAL.items():
        candidates = [
            str(name) for name in (*preferred[key], getattr(tokenizer, key, None), *usual) if name is not None
        ]
        names |= dict([(key, name) for name in candidates if backend.token_to_id(name) is not None][:1])
    return names


def _settings(own: Any) -> list[str]:
    """Settings that tokenizer_config.json states and that `transformers`, in every version, lets overrule
    tokenizer.json, set in the file's tokenizer; a note for each that differed. Those of a BERT that it does
    not state are stated."""
    from tokenizers import normalizers, pre_tokenizers

    notes: list[str] = []

    def state(part: Any, attribute: str, key: str) -> None:
        stated = own.init_kwargs.get(key)
        value = getattr(part, attribute)
        if stated is None:
            own.init_kwargs[key] = value
        elif stated != value:
            setattr(part, attribute, stated)
            notes.append(
                f"tokenizer: {key} = {str(stated).lower()}: tokenizer_config.json overrides tokenizer.json"
            )

    backend = own.backend_tokenizer
    for part in _parts(backend.normalizer, normalizers.Sequence):
        if isinstance(part, normalizers.BertNormalizer):
            for key, attribute in NORMALIZER.items():
                state(part, attribute, key)
    for part in _parts(backend.pre_tokenizer, pre_tokenizers.Sequence):
        if isinstance(part, pre_tokenizers.ByteLevel):
            state(part, "add_prefix_space", "add_prefix_space")
            own.add_prefix_space = part.add_prefix_space
    return notes


def _parts(component: Any, sequence: type) -> Iterator[Any]:
    """A normalizer or pre-tokenizer, or each of a sequence of them."""
    if isinstance(component, sequence):
        for part in component:  # type: ignore[attr-defined]
            yield from _parts(part, sequence)
    else:
        yield component


def _difference(tokenizer: Any, own: Any, texts: Sequence[str]) -> str | None:
    """The first text, or pair, that two tokenizers encode as other ids, as a note quotes it; None where there
    is none."""
    singles = [text for text in (*PROBES, *texts) if text]
    inputs: list[Any] = [*singles, *pairwise(PROBES)]
    rows = []
    for one in (own, tokenizer):
        with fast_tokenizer.whole(one) as backend:
            try:
                rows.append([encoding.ids for encoding in backend.encode_batch(inputs)])
            except Exception:
                # the bindings raise nothing narrower: a class rebuilt it without its unknown token
                if one is own:
                    raise
                return "any text"
    differ = next((number for number, (a, b) in enumerate(zip(*rows, strict=True)) if a != b), None)
    if differ is None:
        return None
    if differ >= len(singles):
        return "a pair of texts"
    text = singles[differ]
    return repr(text if len(text) <= 40 else f"{text[:40]}...")


def _unframed(tokenizer: Any) -> list[str]:
    """A note where the special tokens of an encoder are there, and not set."""
    names = tokenizer.cls_token, tokenizer.sep_token
    if None in names or tokenizer.num_special_tokens_to_add(pair=False):
        return []
    return [
        f"tokenizer: it adds neither {names[0]} nor {names[1]} to a text, although encoders are pretrained "
        "with them; its tokenizer.json lacks a post_processor"
    ]


def _unreachable(tokenizer: Any) -> list[str]:
    """A note where every text is lower-cased and the vocabulary is not: a cased checkpoint whose files do not
    say so."""
    from tokenizers import normalizers

    parts = _parts(tokenizer.backend_tokenizer.normalizer, normalizers.Sequence)
    if not any(isinstance(part, normalizers.BertNormalizer) and part.lowercase for part in parts):
        return []
    tokens = tokenizer.backend_tokenizer.get_vocab(with_added_tokens=False)
    # without [PAD] and the like
    vocabulary = [token for token in tokens if not re.fullmatch(r"\[.+\]|<.+>", token)]
    cased = sum(token != token.lower() for token in vocabulary)
    if cased <= CASED * len(vocabulary):
        return []
    return [
        f"tokenizer: every text is lower-cased, but {cased:,} of {len(vocabulary):,} tokens have capitals "
        "and are never used; if the checkpoint is cased, set do_lower_case = false in tokenizer_config.json"
    ]


def _misread(where: str, options: dict[str, Any]) -> list[str]:
    """A note where `transformers` will read the saved folder otherwise whatever its files say."""
    from transformers import AutoConfig
    from transformers.models.auto import tokenization_auto as auto

    kind = AutoConfig.from_pretrained(where, **options).model_type
    forced = auto.TOKENIZER_MAPPING_NAMES.get(kind)
    if kind not in auto.MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS or forced in (None, "TokenizersBackend"):
        return []
    return [
        f"tokenizer: this version of transformers always uses {forced} for {kind}, which encodes "
        "differently: load the trained model with bert_ft.load, or its tokenizer with "
        "PreTrainedTokenizerFast"
    ]
