"""The tokenizer is the checkpoint's, whatever class `transformers` makes of it, and it says what it leaves out.

Every vocabulary is trained here. What is right is what `tokenizers.Tokenizer.from_file` makes of the checkpoint's own file,
a count over the offsets of each encoding, or what `create_token_type_ids_from_sequences` of transformers 4 documents.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

import bert_ft
from bert_ft.config.schema import RunSpec
from bert_ft.errors import InputError
from bert_ft.families import coverage, fast_tokenizer, tokenization
from bert_ft.modeling import saving, token_types, vocabulary

TEXTS = [
    "The Quick brown Fox isn't lazy: 3.14 + 1,024 = 50%",
    "A Café in Zürich, a naïve Ångström",
    "这家酒店的服务很好，价格2008元。北京NBA比赛",
    "a warm and funny film with a brave Heart",
    "two  spaces\tand a tab",
    "the plot is dull and the Jokes fall flat",
]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "pad_token_id": 0,
}


# --- checkpoints ----------------------------------------------------------------------------------------------------------


def template(tokenizer: Any, first: str, last: str, second: int = 1) -> Any:
    ids = [(token, tokenizer.token_to_id(token)) for token in (first, last)]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}", pair=f"{first} $A {last} $B:{second} {last}:{second}", special_tokens=ids
    )
    return tokenizer


def wordpiece(lowercase: bool = False) -> Any:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=400, special_tokens=SPECIAL, show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    return template(tokenizer, "[CLS]", "[SEP]")


def bytelevel(texts: list[str] = TEXTS, alphabet: bool = True) -> Any:
    """RoBERTa's kind; without the alphabet of all bytes it drops those that it did not meet, and has no unknown token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    initial = pre_tokenizers.ByteLevel.alphabet() if alphabet else []
    names = ["<pad>", "<s>", "</s>", "<unk>", "<mask>"]
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=names, initial_alphabet=initial, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 1))
    return tokenizer


def unigram(second: int = 1) -> Any:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    names = ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.UnigramTrainer(
        vocab_size=200, special_tokens=names, unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return template(tokenizer, "[CLS]", "[SEP]", second)


def characters() -> Any:
    """BPE over characters without an unknown token, which drops what it does not know: within a word, where `##x` counts,
    other characters than at its beginning."""
    vocabulary = {
        name: number for number, name in enumerate([*SPECIAL, *"abcd酒店", "##a", "##b", "##e", "##好"])
    }
    tokenizer = Tokenizer(models.BPE(vocabulary, [], continuing_subword_prefix="##"))
    tokenizer.normalizer = normalizers.BertNormalizer(handle_chinese_chars=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return template(tokenizer, "[CLS]", "[SEP]")


def checkpoint(
    folder: Path, kind: str, tokenizer: Any, beside: dict[str, Any] | None = None, **options: Any
) -> Path:
    """A folder of an architecture's configuration with a tokenizer.json; `beside`: its tokenizer_config.json."""
    config = transformers.AutoConfig.for_model(kind, **options)
    config.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    if beside is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(beside))
    return folder


def network_of(config: Any) -> Any:
    """What is asked of a model, without its weights: what its forward takes, and its configuration."""
    several = transformers.AutoModel._model_mapping[type(config)]
    model = several[0] if isinstance(several, tuple) else several
    return SimpleNamespace(forward=model.forward, config=config)


def load(folder: Path) -> tuple[Any, list[str]]:
    return vocabulary.load(RunSpec(), str(folder), TEXTS)


def ids(tokenizer: Any, texts: Any = TEXTS) -> list[list[int]]:
    backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
    return [encoding.ids for encoding in backend.encode_batch(texts)]


def of_file(folder: Path) -> Any:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


# --- which tokenizer --------------------------------------------------------------------------------------------------------

BERT = {"tokenizer_class": "BertTokenizer"}
NAMES = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
CASES: dict[str, tuple[str, Callable[[], Any], dict[str, Any] | None, bool]] = {  # the last: transformers reads it otherwise
    "cased bert, no configuration": ("bert", wordpiece, None, True),
    "cased bert, silent configuration": ("bert", wordpiece, BERT, True),
    "cased bert, configuration says so": ("bert", wordpiece, BERT | {"do_lower_case": False}, False),
    "uncased bert": ("bert", lambda: wordpiece(True), None, False),
    "wordpiece roberta": ("roberta", wordpiece, None, True),
    "wordpiece roberta with names": ("roberta", wordpiece, {"tokenizer_class": "RobertaTokenizer", **NAMES}, True),
    "bytes roberta": ("roberta", bytelevel, None, False),
    "bytes bert": ("bert", bytelevel, None, True),
    "bytes modernbert, no configuration": ("modernbert", bytelevel, None, False),
    "wordpiece splinter": ("splinter", wordpiece, None, True),
    "wordpiece funnel": ("funnel", wordpiece, None, True),
    "wordpiece distilbert": ("distilbert", lambda: wordpiece(True), None, False),
    "wordpiece albert": ("albert", wordpiece, None, True),
    "unigram albert": ("albert", unigram, None, True),
    "unigram deberta": ("deberta-v2", unigram, None, True),
    "unigram xlm-roberta": ("xlm-roberta", unigram, {"tokenizer_class": "XLMRobertaTokenizer"}, True),
    "unigram nystromformer": ("nystromformer", unigram, None, False),
    "wordpiece xlm, whose class is slow": ("xlm", wordpiece, None, True),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_ids_are_those_of_the_checkpoints_own_file(case: str, tmp_path: Path) -> None:
    kind, make, beside, otherwise = CASES[case]
    folder = checkpoint(tmp_path, kind, make(), beside)
    expected = of_file(folder)
    try:
        chosen = ids(AutoTokenizer.from_pretrained(folder))
    except Exception:  # a class that can't take the file, or has no Rust tokenizer
        chosen = None
    assert (chosen != ids(expected)) == otherwise  # else the case shows nothing
    tokenizer, notes = load(folder)
    assert ids(tokenizer) == ids(expected)
    pairs = [("北京 Fox", "a Café"), ("the", "二")]
    assert ids(tokenizer, pairs) == ids(expected, pairs)
    assert any("tokenizer.json is used as it is" in note for note in notes) == otherwise
    assert tokenizer.pad_token_id == expected.token_to_id(tokenizer.pad_token) == 0
    assert len(tokenizer) == expected.get_vocab_size()
    for name in (tokenizer.cls_token, tokenizer.sep_token):
        assert expected.token_to_id(name) in expected.encode("a").ids


def test_a_checkpoint_of_the_hub_is_compared_with_the_file_in_its_cache() -> None:
    from huggingface_hub import constants

    home = Path(constants.HF_HUB_CACHE) / "models--org--cased"
    folder = home / "snapshots" / ("0" * 40)
    folder.mkdir(parents=True)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text("0" * 40)
    checkpoint(folder, "bert", wordpiece())
    tokenizer, notes = vocabulary.load(RunSpec(), "org/cased", TEXTS)
    assert ids(tokenizer) == ids(of_file(folder)) != ids(AutoTokenizer.from_pretrained(folder))
    assert any("tokenizer.json is used as it is" in note for note in notes)


def test_settings_that_transformers_lets_overrule_the_file_still_do_and_are_told(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "a", "bert", wordpiece(), BERT | {"do_lower_case": True})
    tokenizer, notes = load(folder)
    assert ids(tokenizer) == ids(AutoTokenizer.from_pretrained(folder)) != ids(of_file(folder))
    assert any("do_lower_case = true: tokenizer_config.json overrides" in note for note in notes)
    space = {"tokenizer_class": "RobertaTokenizer", "add_prefix_space": True}
    folder = checkpoint(tmp_path / "b", "roberta", bytelevel(), space)
    tokenizer, notes = load(folder)
    assert ids(tokenizer) == ids(AutoTokenizer.from_pretrained(folder)) != ids(of_file(folder))
    assert any("add_prefix_space = true" in note for note in notes)


def test_a_file_without_special_tokens_gets_those_of_its_class_or_is_refused(tmp_path: Path) -> None:
    full = wordpiece()
    bare = Tokenizer.from_str(json.dumps(json.loads(full.to_str()) | {"post_processor": None}))
    tokenizer, _ = load(checkpoint(tmp_path / "a", "bert", bare))
    assert ids(tokenizer) == ids(full)  # BERT's class sets [CLS] and [SEP]
    with pytest.raises(InputError, match="does not say which special tokens to add"):
        load(checkpoint(tmp_path / "b", "roberta", bare))


@pytest.mark.parametrize("broken", ["{", '{"model": {"type": "WordPiece"}}', "[]"])
def test_a_broken_file_is_one_message(broken: str, tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, "bert", wordpiece())
    (folder / "tokenizer.json").write_text(broken)
    with pytest.raises(InputError, match="can't be loaded"):
        load(folder)


def test_padding_and_truncation_of_a_file_are_neither_read_nor_saved(tmp_path: Path) -> None:
    saved = wordpiece(True)
    saved.enable_padding(length=64)
    saved.enable_truncation(8)
    folder = checkpoint(tmp_path / "a", "bert", saved)
    tokenizer, _ = load(folder)
    assert ids(tokenizer) == ids(of_file(folder)) and max(map(len, ids(tokenizer))) > 8
    tokenizer(
        TEXTS, truncation=True, max_length=5, padding="max_length"
    )  # leaves its mark on the Rust tokenizer
    save(tmp_path / "b", tokenizer)
    tree = json.loads((tmp_path / "b" / "tokenizer.json").read_text())
    assert tree["padding"] is None and tree["truncation"] is None
    beside = json.loads((tmp_path / "b" / "tokenizer_config.json").read_text())
    assert not beside.keys() & {"max_length", "stride", "truncation_strategy", "pad_to_multiple_of"}


def test_a_tokenizer_that_leaves_its_special_tokens_out_is_told(tmp_path: Path) -> None:
    bare = Tokenizer.from_str(json.dumps(json.loads(unigram().to_str()) | {"post_processor": None}))
    (note,) = [
        note for note in load(checkpoint(tmp_path, "nystromformer", bare))[1] if "adds neither" in note
    ]
    assert "[CLS] nor [SEP]" in note


def test_a_cased_vocabulary_that_is_lower_cased_is_told(tmp_path: Path) -> None:
    for name, tokenizer in (("cased", wordpiece()), ("uncased", wordpiece(True))):
        folder = tmp_path / name
        transformers.BertConfig().save_pretrained(folder)
        order = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
        (folder / "vocab.txt").write_text("".join(f"{token}\n" for token, _ in order))
        notes = load(folder)[1]
        assert any("have capitals and are never used" in note for note in notes) == (name == "cased")


def save(folder: Path, tokenizer: Any, kind: str = "bert") -> None:
    config = transformers.AutoConfig.for_model(kind)
    config.save_pretrained(folder)
    saving._save_tokenizer(folder, tokenizer)


READ = """
import json, sys
from transformers import AutoTokenizer
from bert_ft.config.schema import RunSpec
from bert_ft.modeling import vocabulary
texts = json.loads(sys.argv[1])
for folder in sys.argv[2:]:
    auto = AutoTokenizer.from_pretrained(folder)
    own, notes = vocabulary.load(RunSpec(), folder, texts)
    rows = [[encoding.ids for encoding in one.backend_tokenizer.encode_batch(texts)] for one in (auto, own)]
    print(json.dumps([auto(texts)["input_ids"], *rows, auto.model_input_names, own.model_input_names, notes]))
"""


def test_a_saved_tokenizer_is_read_as_it_was_by_both_in_a_fresh_process(tmp_path: Path) -> None:
    expected, folders = [], []
    for number, (kind, make, beside, _) in enumerate(CASES.values()):
        source = checkpoint(tmp_path / f"{number}", kind, make(), beside)
        tokenizer, _ = load(source)
        token_types.set_types(
            tokenizer, network_of(transformers.AutoConfig.from_pretrained(source)), pairs=True
        )
        fast_tokenizer.leading_space(tokenizer)  # as ner does
        folders.append(tmp_path / f"{number}-saved")
        save(folders[-1], tokenizer, kind)
        beside = json.loads((folders[-1] / "tokenizer_config.json").read_text())
        assert beside["tokenizer_class"] != "TokenizersBackend"  # which transformers 4 does not know
        expected.append((ids(tokenizer), tokenizer.model_input_names))
    command = [sys.executable, "-c", READ, json.dumps(TEXTS), *map(str, folders)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    for case, (right, names), line in zip(CASES, expected, done.stdout.splitlines(), strict=True):
        called, auto, own, auto_names, own_names, notes = json.loads(line)
        assert called == auto == own == right, case
        assert auto_names == own_names == names and not notes, (case, auto_names, names, notes)


# --- what no token stands for -------------------------------------------------------------------------------------------------


def uncovered_by_hand(tokenizer: Any, text: str) -> tuple[int, int]:
    """(characters in no token, characters that count), from the offsets of the text's own encoding."""
    encoding = tokenizer.backend_tokenizer.encode(text, add_special_tokens=False)
    covered = {place for begin, end in encoding.offsets for place in range(begin, end)}
    counting = {i for i, c in enumerate(text) if not c.isspace() and unicodedata.category(c)[0] not in "ZCM"}
    return len(counting - covered), len(counting)


def fast(tokenizer: Any, **names: Any) -> Any:
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=tokenizer.id_to_token(0), **names)


@pytest.mark.parametrize(
    "make", [characters, lambda: bytelevel(["plain text"], False), wordpiece, unigram, bytelevel]
)
def test_characters_in_no_token_are_those_that_the_offsets_leave_out(make: Callable[[], Any]) -> None:
    tokenizer = fast(make())
    rng = random.Random(0)
    letters = "aabbcde  xyz酒店好北,.\u00e9\u0301\t\x07\u200dﬁ😀é"
    texts = ["".join(rng.choices(letters, k=rng.randrange(30))) for _ in range(300)]
    found = np.stack(coverage.of_texts(tokenizer, texts), axis=1).tolist()
    assert found == [list(uncovered_by_hand(tokenizer, text)) for text in texts]
    total = sum(a for a, _ in found)
    assert bool(total) == (make is characters or "plain" in str(make.__code__.co_consts)), total


def test_nothing_is_lost_where_a_normaliser_drops_accents_and_control_characters() -> None:
    tokenizer = fast(wordpiece(True))
    uncovered, total = coverage.of_texts(tokenizer, ["cafe\u0301 na\u00efve", "a\x07b\u200dc", ""])
    assert uncovered.tolist() == [0, 0, 0] and total.tolist() == [9, 3, 0]


ROWS: dict[str, dict[str, Any]] = {
    "classification": {"text": ["ab 好好", "cd"] * 6, "label": ["x", "y"] * 6},
    "ner": {"tokens": [["ab", "好好"], ["cd"]] * 6, "tags": [["B-X", "O"], ["O"]] * 6},
    "qa": {"question": ["ab 好好", "cd"] * 6, "context": ["ab", "cd 好"] * 6, "id": [str(i) for i in range(12)],
           "answers": [{"text": ["ab"], "answer_start": [0]}, {"text": ["cd"], "answer_start": [0]}] * 6},
}  # fmt: skip
LEFT_OUT = {
    "classification": 12,
    "ner": 12,
    "qa": 14,
}  # the first of 好好, and d; each different context once


@pytest.fixture(scope="module")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dropping")
    config = transformers.BertConfig(vocab_size=20, max_position_embeddings=32, **SMALL)
    transformers.BertModel(config).save_pretrained(folder)
    fast(characters(), unk_token=None, cls_token="[CLS]", sep_token="[SEP]").save_pretrained(folder)
    return folder


@pytest.mark.parametrize("family", ROWS)
def test_a_run_counts_and_warns_of_characters_in_no_token(
    family: str, tiny_bert: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = bert_ft.finetune(family, tiny_bert, train=ROWS[family], validation=ROWS[family], max_steps=1, epochs=1,
                           max_length=32, output=tmp_path / "run", check=False)  # fmt: skip
    counts = run.results["counts"]["train"]
    assert counts["unknown"] == 0 and counts["uncovered"] == LEFT_OUT[family]
    told = capfd.readouterr().err
    assert f"{LEFT_OUT[family]} of {counts['characters']} characters in no token" in told
    assert "of the characters are in no token, so the model does not see them" in told
    assert any("in no token" in note for note in run.results["notes"])
    assert "uncovered" in (run.path / "report.html").read_text()


def test_check_tells_characters_in_no_token_with_their_rows(tiny_bert: Path) -> None:
    from bert_ft.tools.check import check

    report = check(
        "classification", str(tiny_bert), train=ROWS["classification"], validation=ROWS["classification"]
    )
    (finding,) = [f for f in report.findings if f.check == "uncovered" and f.set == "train"]
    assert finding.severity == "warning" and finding.count == 12
    assert "of all characters" in finding.message and "1 of 4 characters" in finding.places[0]


# --- token types --------------------------------------------------------------------------------------------------------------


def published(kind: str, tokenizer: Any, first: str, second: str | None) -> list[int]:
    """What `create_token_type_ids_from_sequences` of the architecture's tokenizer in transformers 4 documents."""
    a = len(tokenizer.backend_tokenizer.encode(first, add_special_tokens=False).ids)
    b = (
        len(tokenizer.backend_tokenizer.encode(second, add_special_tokens=False).ids)
        if second is not None
        else None
    )
    if kind == "xlnet":  # A <sep> B <sep> <cls>
        return [0] * (a + 1) + ([1] * (b + 1) if b is not None else []) + [2]
    whole = 2 if kind == "funnel" else 0
    question = 2 if kind == "splinter" and b is not None else 0  # [CLS] A [QUESTION] . [SEP] B [SEP]
    return [whole] + [0] * (a + question + 1) + ([1] * (b + 1) if b is not None else [])


WORDS = ["a warm film", "这家酒店很好"]
TYPED: dict[str, dict[str, Any]] = {  # smallest configurations
    "albert": {"embedding_size": 8}, "big_bird": {"attention_type": "original_full"}, "rembert": {"input_embedding_size": 8},
    "nystromformer": {"num_landmarks": 64, "segment_means_seq_len": 64}, "splinter": {}, "bert": {},
    "funnel": {"d_model": 16, "n_head": 2, "d_head": 8, "d_inner": 32, "block_sizes": [1, 1], "num_decoder_layers": 1,
               "num_hidden_layers": None, "architectures": ["FunnelModel"]},
    "xlnet": {"d_model": 16, "n_layer": 1, "n_head": 2, "d_inner": 32},
}  # fmt: skip


def native(kind: str, folder: Path) -> Any:
    """A tokenizer of the architecture's own class, without types of its own in transformers 5; saved by that class."""
    if kind in ("splinter", "funnel"):
        special = (
            [*SPECIAL, "[QUESTION]", "."]
            if kind == "splinter"
            else ["<pad>", "<unk>", "<cls>", "<sep>", "<mask>"]
        )
        tokens = [
            *special,
            *"abcdefghijklmnopqrstuvwxyz",
            *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz"),
            *WORDS[1],
        ]
        cls = transformers.SplinterTokenizer if kind == "splinter" else transformers.FunnelTokenizer
        tokenizer = cls(vocab={token: number for number, token in enumerate(tokens)})
    elif kind in ("bert", "nystromformer"):  # whose tokenizer is the bare class
        tokenizer = fast(unigram(), unk_token="<unk>", cls_token="[CLS]", sep_token="[SEP]")
    else:
        special = {"xlnet": ["<pad>", "<unk>", "<cls>", "<sep>", "<mask>"]}.get(
            kind, ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"]
        )
        pieces = [(token, 0.0) for token in special] + [
            (c, -3.0) for c in "▁abcdefghijklmnopqrstuvwxyz" + WORDS[1]
        ]
        cls = {"albert": transformers.AlbertTokenizer, "big_bird": transformers.BigBirdTokenizer,
               "rembert": transformers.RemBertTokenizer, "xlnet": transformers.XLNetTokenizer}[kind]  # fmt: skip
        tokenizer = cls(vocab=pieces, unk_id=1) if kind == "xlnet" else cls(vocab=pieces)
        if kind == "rembert":  # which transformers 5.23 leaves without, where it builds it from a vocabulary
            template(tokenizer.backend_tokenizer, "[CLS]", "[SEP]")
    tokenizer.save_pretrained(folder)
    return tokenizer


@pytest.mark.parametrize("kind", TYPED)
def test_pairs_have_the_types_that_the_architecture_was_pretrained_with(kind: str, tmp_path: Path) -> None:
    """Encoded by us as the published tokenizer did; single texts give the logits that they give without types; what is saved
    is read the same by transformers."""
    vocabulary_size = len(native(kind, tmp_path))
    options = {key: value for key, value in (SMALL | TYPED[kind]).items() if value is not None}
    config = transformers.AutoConfig.for_model(kind, vocab_size=vocabulary_size, **options)
    config.save_pretrained(tmp_path)
    tokenizer, _ = load(tmp_path)
    assert "token_type_ids" not in tokenizer.model_input_names  # else the case shows nothing
    torch.manual_seed(0)
    network = transformers.AutoModel.from_config(config).eval()
    notes = token_types.set_types(tokenizer, network, pairs=True)
    assert notes == [
        f"the texts of a pair get token types, as in the pretraining of {kind}; transformers leaves them out"
    ]
    assert token_types.set_types(tokenizer, network, pairs=True) == []  # it is stated from now on
    _, pairs, _ = tokenization.encode(tokenizer, WORDS[:1], WORDS[1:], 64)
    right = published(kind, tokenizer, *WORDS)
    assert pairs["token_type_ids"].tolist() == right
    _, single, _ = tokenization.encode(tokenizer, WORDS[:1], None, 64)
    assert single["token_type_ids"].tolist() == published(kind, tokenizer, WORDS[0], None)
    if kind != "xlnet":  # which compares the type of <cls>, 2, with the others' also in a single text
        columns = {key: torch.from_numpy(column[None].astype(np.int64)) for key, column in single.items()}
        with torch.inference_mode():
            typed = network(**columns)[0]
            assert torch.equal(typed, network(input_ids=columns["input_ids"])[0])
    config.save_pretrained(tmp_path / "saved")
    saving._save_tokenizer(tmp_path / "saved", tokenizer)
    for read in (AutoTokenizer.from_pretrained(tmp_path / "saved"), load(tmp_path / "saved")[0]):
        encoded = read(*WORDS)
        assert encoded["token_type_ids"] == right and encoded["input_ids"] == pairs["input_ids"].tolist()


def typed_or_not(kind: str, tokenizer: Any, **options: Any) -> tuple[bool, list[str]]:
    notes = token_types.set_types(
        tokenizer, network_of(transformers.AutoConfig.for_model(kind, **options)), pairs=True
    )
    return "token_type_ids" in tokenizer.model_input_names, notes


@pytest.mark.parametrize(
    "kind", ["roberta", "xlm-roberta", "camembert", "longformer", "data2vec-text", "ibert", "mpnet"]
)
def test_architectures_that_were_pretrained_without_types_get_none(kind: str) -> None:
    for make in (bytelevel, unigram):
        assert typed_or_not(kind, fast(make()), type_vocab_size=2) == (False, [])


def test_types_that_a_model_has_no_place_for_are_not_given() -> None:
    names = ["input_ids", "token_type_ids", "attention_mask"]
    assert typed_or_not("distilbert", fast(wordpiece(), model_input_names=names)) == (False, [])
    given, (note,) = typed_or_not("roberta", fast(wordpiece(), model_input_names=names), type_vocab_size=1)
    assert not given and "no token types are used: the model has 1" in note
    assert typed_or_not("albert", fast(unigram()), type_vocab_size=1) == (False, [])
    assert typed_or_not("gpt2", fast(unigram())) == (False, [])


def test_what_is_stated_or_was_trained_without_types_stays_so() -> None:
    stated = fast(unigram(), model_input_names=["input_ids", "attention_mask"])
    assert typed_or_not("albert", stated) == (False, [])
    assert typed_or_not("albert", fast(unigram()), bert_ft={"task": {}}) == (False, [])


def test_the_key_of_cached_features_follows_the_types_and_the_tokenizer(tmp_path: Path) -> None:
    from bert_ft import families
    from bert_ft.config.catalog import load_task
    from bert_ft.engine import feature_cache

    adapter = families.find("classification")(load_task("classification"), ["x", "y"])
    rows = adapter.rows(TEXTS)
    made = unigram()
    plain, typed, other = fast(made), fast(made), fast(unigram(second=0))
    typed_or_not("albert", typed)
    keys = [
        feature_cache.key(adapter, rows, tokenizer, 64) for tokenizer in (plain, typed, other, fast(made))
    ]
    assert len({*keys[:3]}) == 3 and keys[0] == keys[3]


def test_a_template_without_types_gets_those_of_the_published_tokenizer() -> None:
    tokenizer = fast(unigram(second=0), cls_token="[CLS]", sep_token="[SEP]")
    before = ids(tokenizer, [tuple(WORDS)]), ids(tokenizer, WORDS)
    given, notes = typed_or_not("albert", tokenizer)
    assert given and len(notes) == 1
    assert (ids(tokenizer, [tuple(WORDS)]), ids(tokenizer, WORDS)) == before
    assert tokenizer.backend_tokenizer.encode(*WORDS).type_ids == published("albert", tokenizer, *WORDS)


@pytest.mark.slow
def test_a_trained_pair_classifier_predicts_the_same_when_it_is_loaded(tmp_path: Path) -> None:
    """From a folder that transformers misreads and types too: trained, saved, read in a fresh process by both."""
    source = tmp_path / "albert"
    made = fast(unigram(), unk_token="<unk>", cls_token="[CLS]", sep_token="[SEP]")
    config = transformers.AlbertConfig(
        vocab_size=len(made), max_position_embeddings=128, embedding_size=8, **SMALL
    )
    torch.manual_seed(0)
    network = transformers.AlbertModel(config)
    network.embeddings.token_type_embeddings.weight.data.normal_(0, 1.0)  # that types make a difference
    network.save_pretrained(source)
    made.backend_tokenizer.save(str(source / "tokenizer.json"))
    rows = {"text": TEXTS * 2, "text_pair": TEXTS[::-1] * 2, "label": ["x", "y"] * 6}
    run = bert_ft.finetune("classification", source, train=rows, validation=rows, epochs=2, max_length=128, batch_size=4,
                           learning_rate=1e-3, **{"data.columns": {"text": "text", "text_pair": "text_pair", "label": "label"}}, output=tmp_path / "run", check=False)  # fmt: skip
    assert any("tokenizer.json is used as it is" in note for note in run.results["notes"])
    assert any("a pair get token types" in note for note in run.results["notes"])
    code = """
import json, sys
import torch, transformers, bert_ft
folder, pairs = sys.argv[1], json.loads(sys.argv[2])
ours = [answer["probabilities"] for answer in bert_ft.load(folder).predict([tuple(pair) for pair in pairs])]
tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
network = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
theirs = []
for pair in pairs:
    logits = network(**tokenizer(*pair, return_tensors="pt")).logits[0]
    theirs.append({network.config.id2label[i]: p for i, p in enumerate(logits.softmax(-1).tolist())})
print(json.dumps([ours, theirs]))
"""
    pairs = list(zip(rows["text"], rows["text_pair"], strict=True))[:6]
    trained = [answer["probabilities"] for answer in run.model.predict(pairs)]
    command = [sys.executable, "-c", code, str(run.path / "model"), json.dumps(pairs)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    for read in json.loads(done.stdout.splitlines()[-1]):
        for row, right in zip(read, trained, strict=True):
            assert row == pytest.approx(right, abs=1e-5)
