"""An encoder without a head: hidden states are those of the plain padded model, whatever shares the batch;
streamed."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf

import bert_ft
from bert_ft.errors import InputError
from bert_ft.families.features import Features
from bert_ft.modeling import encoder as encoding
from bert_ft.modeling.encoder import Encoder, Text
from tests.conftest import SENTENCES
from tests.tiny_models import CONFIGS, SIZES

CHINESE = ["这家酒店的服务很好，价格2008元。", "北京NBA比赛", "繁體中文"]
TEXTS: list[Text] = [
    *SENTENCES[:4], *CHINESE, "", "naïve  Café\t!", (SENTENCES[4], SENTENCES[5]), (CHINESE[0], CHINESE[1]),
    "fine " * 100, (SENTENCES[6], "dull " * 100),
]  # fmt: skip
LONGEST = 40
HEADS = {  # the head that the checkpoint has; None: none
    "Bert": "ForMaskedLM", "Roberta": "ForMaskedLM", "DistilBert": "ForSequenceClassification", "Albert": None,
    "Electra": "ForPreTraining", "DebertaV2": "ForMaskedLM", "ModernBert": "ForTokenClassification",
    "Bart": "ForSequenceClassification", "ConvBert": None,
}  # fmt: skip
OTHERS: dict[str, Any] = {
    "DebertaV2": lambda: tf.DebertaV2Config(
        **SIZES, relative_attention=True, pos_att_type=["p2c", "c2p"], position_buckets=8, type_vocab_size=0
    ),
    "ConvBert": lambda: tf.ConvBertConfig(**SIZES, embedding_size=32, conv_kernel_size=3, head_ratio=2),
    "Bart": lambda: tf.BartConfig(
        vocab_size=60, d_model=32, encoder_layers=2, decoder_layers=1, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=40, decoder_ffn_dim=40, max_position_embeddings=64, init_std=0.3,
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """WordPiece with Chinese characters."""
    from tokenizers import BertWordPieceTokenizer

    pieces = BertWordPieceTokenizer(lowercase=True)
    pieces.train_from_iterator([*SENTENCES, *CHINESE], vocab_size=300, min_frequency=1, show_progress=False)
    return tf.BertTokenizerFast(tokenizer_object=pieces._tokenizer, model_max_length=LONGEST)


def checkpoint(name: str, tokenizer: Any, folder: Path) -> Path:
    """A tiny random model with its head, and the tokenizer."""
    config = (CONFIGS | OTHERS)[name]()
    config.vocab_size, config.pad_token_id = len(tokenizer), tokenizer.pad_token_id
    torch.manual_seed(0)
    getattr(tf, f"{name}{HEADS[name] or 'Model'}")(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def reference(
    model: Any, encoder: Encoder, texts: list[Text], layers: list[int] | None = None
) -> list[np.ndarray]:
    """Of the plain model, all texts padded to the longest."""
    pairs = [(text,) if isinstance(text, str) else text for text in texts]
    rows = [
        encoder.tokenizer(*pair, truncation="longest_first", max_length=encoder.max_length) for pair in pairs
    ]
    inputs = encoder.tokenizer.pad(rows, return_tensors="pt")
    with torch.no_grad():
        outputs = model(**inputs, output_hidden_states=True)
    chosen = outputs.hidden_states if layers is not None else [outputs.last_hidden_state]
    hidden = [chosen[layer].numpy() for layer in layers or [0]]
    lengths = inputs["attention_mask"].sum(1).tolist()
    stacked = [np.stack([layer[row, :length] for layer in hidden]) for row, length in enumerate(lengths)]
    return [each if layers is not None else each[0] for each in stacked]


def assert_equal(encoder: Encoder, model: Any, texts: list[Text], layers: list[int] | None = None) -> None:
    """Together, and each alone."""
    expected = reference(model, encoder, texts, layers)
    together = list(encoder.states(texts, layers))
    assert [states.row for states in together] == list(range(len(texts)))
    for text, states, hidden in zip(texts, together, expected, strict=True):
        alone = next(encoder.states([text], layers))
        assert states.hidden.shape == hidden.shape and states.hidden.dtype == np.float32
        assert np.abs(states.hidden - hidden).max() < 1e-5
        assert np.abs(alone.hidden - hidden).max() < 1e-5
        assert alone.tokens.tolist() == states.tokens.tolist()


@pytest.mark.parametrize("name", [name for name in HEADS if name != "ConvBert"])
def test_states_are_those_of_the_plain_model(name: str, tokenizer: Any, tmp_path: Path) -> None:
    folder = checkpoint(name, tokenizer, tmp_path / name)
    state = torch.get_rng_state()
    encoder = Encoder.load(str(folder))
    assert torch.equal(torch.get_rng_state(), state), "nobody's random numbers are drawn"
    assert encoder.max_length == LONGEST
    padding_free = name not in ("DebertaV2", "Bart")
    assert encoder.unpadding.active == padding_free, encoder.notes
    model = tf.AutoModel.from_pretrained(folder).eval()
    model = model.encoder if name == "Bart" else model
    assert {*dict(encoder.network.named_parameters())} == {*dict(model.named_parameters())}, (
        "no head, no decoder"
    )
    assert_equal(encoder, model, TEXTS)
    assert_equal(encoder, model, TEXTS[2:10], [0, -1, 1])


def test_rows_share_a_batch_only_where_padding_changes_nothing(tokenizer: Any, tmp_path: Path) -> None:
    """ConvBERT's convolution reads the padding: texts go through it with those of their own length."""
    encoder = Encoder.load(str(checkpoint("ConvBert", tokenizer, tmp_path / "convbert")))
    assert encoder.sharing.equal_lengths and any("equal lengths" in note for note in encoder.notes)
    model = tf.AutoModel.from_pretrained(tmp_path / "convbert").eval()
    together = list(encoder.states(TEXTS))
    padded = reference(model, encoder, TEXTS)
    for text, states in zip(TEXTS, together, strict=True):
        [alone] = reference(model, encoder, [text])
        assert np.abs(states.hidden - alone).max() < 1e-5
    assert max(np.abs(a.hidden - b).max() for a, b in zip(together, padded, strict=True)) > 1e-3


def test_minilm(minilm: Path) -> None:
    encoder, model = Encoder.load(str(minilm), precision="fp32"), tf.AutoModel.from_pretrained(minilm).eval()
    assert encoder.max_length == 512 and encoder.unpadding.active
    assert_equal(encoder, model, TEXTS)


def test_places(tokenizer: Any, tmp_path: Path) -> None:
    """Each token's characters, of either text of a pair; what was cut is said."""
    encoder = Encoder.load(str(checkpoint("Bert", tokenizer, tmp_path / "bert")))
    for text, states in zip(TEXTS, encoder.states(TEXTS), strict=True):
        pair = (text,) if isinstance(text, str) else text
        names = tokenizer.convert_ids_to_tokens(states.tokens)
        for name, owner, (begin, end) in zip(names, states.text, states.spans.tolist(), strict=True):
            if owner < 0:
                assert name in ("[CLS]", "[SEP]") and begin == end == 0
            elif name != "[UNK]":
                plain = tf.AutoTokenizer.from_pretrained(tmp_path / "bert").backend_tokenizer.normalizer
                assert plain.normalize_str(pair[owner][begin:end]).strip() == name.removeprefix("##")
        assert {*states.text.tolist()} - {-1} == {at for at, part in enumerate(pair) if part.strip()}
        assert states.truncated == (len(tokenizer(*pair)["input_ids"]) > LONGEST)
        assert len(states.tokens) == len(states.hidden) <= LONGEST


def test_bytes_of_one_character_share_its_place(tmp_path: Path) -> None:
    """A byte-level vocabulary without Chinese: three tokens stand for one character."""
    from tokenizers import ByteLevelBPETokenizer

    pieces = ByteLevelBPETokenizer()
    pieces.train_from_iterator(SENTENCES, vocab_size=300, special_tokens=["<s>", "<pad>", "</s>", "<unk>"])
    special = {"bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "sep_token": "</s>"}
    own = tf.RobertaTokenizerFast(
        tokenizer_object=pieces._tokenizer, **special, pad_token="<pad>", unk_token="<unk>"
    )
    torch.manual_seed(0)
    sizes = SIZES | {"vocab_size": len(own)}
    tf.RobertaModel(tf.RobertaConfig(**sizes, pad_token_id=own.pad_token_id)).save_pretrained(tmp_path)
    own.save_pretrained(tmp_path)
    encoder = Encoder.load(str(tmp_path))
    assert encoder.max_length == 62, "RoBERTa's positions begin behind the padding's"
    [states] = encoder.states([("a 好 film", "北京")])
    words = [
        ("a 好 film", "北京")[owner][begin:end]
        for owner, (begin, end) in zip(states.text, states.spans, strict=True)
        if owner >= 0
    ]
    assert words.count("好") >= 2 and words.count("北") == 3 == words.count("京") and words[0] == "a"


def test_memory_does_not_grow_with_the_rows(
    tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Texts are read as they are needed, features die with their block, and states hold nothing but
    themselves."""
    alive, most, read = weakref.WeakSet[Any](), 0, 0

    class Counted(Features):
        __hash__ = object.__hash__  # type: ignore[assignment]

        def __post_init__(self) -> None:
            alive.add(self)

    monkeypatch.setattr(encoding, "Features", Counted)
    monkeypatch.setattr(encoding, "ROWS", 8)
    monkeypatch.setattr(encoding, "TOKENS", 30)
    encoder = Encoder.load(str(checkpoint("Bert", tokenizer, tmp_path / "bert")))

    def texts() -> Iterator[str]:
        nonlocal read
        for read in range(1, 101):
            yield SENTENCES[read % 12]

    for states in encoder.states(texts()):
        most = max(most, len(alive))
        assert read - states.row <= 8
        assert all(getattr(states, name).base is None for name in ("tokens", "hidden", "text", "spans"))
    assert (states.row, read) == (99, 100) and most <= 3


def test_a_run_is_an_encoder(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """Its head is left out; its model, which has it, gives the same states."""
    rows = [{"text": text, "label": "ab"[i % 2]} for i, text in enumerate(SENTENCES)]
    run = bert_ft.finetune("classification", str(tiny_checkpoint), train=rows, validation=rows,
                           output=tmp_path / "run", max_steps=2, max_length=24, quiet=True)  # fmt: skip
    encoder = Encoder.load(str(run.path))
    assert encoder.max_length == run.model.max_length == 24, "what the run was trained with"
    assert not any("classifier" in name for name, _ in encoder.network.named_parameters())
    texts: list[Text] = [*SENTENCES]
    assert_equal(encoder, tf.AutoModel.from_pretrained(run.path / "model").eval(), texts)
    for model in (run.model, bert_ft.load(run.path).model):
        for own, states in zip(model.states(texts), encoder.states(texts), strict=True):
            assert np.abs(own.hidden - states.hidden).max() < 1e-5
    before = run.model.predict(texts)
    assert before == bert_ft.load(run.path).predict(texts), "and still answers"


@pytest.mark.parametrize(("texts", "layers", "message"), [
    (["a", 1], None, "input 2: this is neither a text nor a pair of texts, but int: 1"),
    ([("a", "b", "c")], None, "input 1: this is neither a text nor a pair"),
    (["a", None], None, "input 2: this is neither a text nor a pair"),
    (["a", "half \ud83d"], None, "input 2: this text holds half of a character"),
    (["a"], [0, 3], "layers: there is no layer 3: this network has 0 (the embeddings) to 2"),
    (["a"], [], "layers: no layer is named"),
])  # fmt: skip
def test_bad_input(tiny_checkpoint: Path, texts: Any, layers: Any, message: str) -> None:
    encoder = Encoder.load(str(tiny_checkpoint))
    with pytest.raises(InputError) as error:
        list(encoder.states(texts, layers))
    assert message in str(error.value)
    assert list(encoder.states([])) == []


def test_what_can_not_be_loaded(tiny_checkpoint: Path, tokenizer: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="max_length = 129, but the checkpoint has 128 positions"):
        Encoder.load(str(tiny_checkpoint), max_length=129)
    folder = checkpoint("Bert", tokenizer, tmp_path / "bert")
    model = tf.BertModel.from_pretrained(folder)
    weights = {name: t for name, t in model.state_dict().items() if "layer.1.output" not in name}
    model.save_pretrained(folder, state_dict=weights)
    with pytest.raises(InputError, match=r"lacks 4 weights of the encoder, encoder\.layer\.1\.output"):
        Encoder.load(str(folder))


@pytest.mark.parametrize("name", ["Albert", "Bert"])
def test_an_encoder_that_is_loaded_to_answer_says_what_it_lacks(
    name: str, tokenizer: Any, tmp_path: Path
) -> None:
    folder = checkpoint(name, tokenizer, tmp_path / name)
    with pytest.raises(InputError) as error:
        bert_ft.load(folder)
    text = str(error.value)
    assert f"this checkpoint ({name}{HEADS[name] or 'Model'}) has no head for a task" in text
    assert f"bert-ft train TASK --checkpoint {folder}" in text
