"""Vectors of texts and of words: those of plain `transformers` with pooling by hand; what a sentence-transformers folder
declares is followed; a long text is read whole, each token where it has the most context."""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

import bert_ft
from bert_ft import Embedder
from bert_ft.errors import InputError
from bert_ft.families import words
from bert_ft.kernels import products
from tests import pages
from tests.conftest import SENTENCES

TEXTS = [*SENTENCES[:5], "北京欢迎你，NBA 2008!", "naïve  Café\t!", "fine film " * 100]
LAST4 = [-4, -3, -2, -1]


class Plain:
    """The checkpoint in plain `transformers`, one text at a time."""

    def __init__(self, folder: Path) -> None:
        self.model = tf.AutoModel.from_pretrained(folder).eval()
        self.tokenizer = tf.AutoTokenizer.from_pretrained(folder)

    def layers(self, text: str, length: int = 128) -> np.ndarray:
        """(layers, T, H)."""
        inputs = self.tokenizer(text, truncation=True, max_length=length, return_tensors="pt")
        with torch.no_grad():
            return np.stack(
                [h[0].numpy() for h in self.model(**inputs, output_hidden_states=True).hidden_states]
            )

    def states(self, text: str, length: int = 128) -> np.ndarray:
        """(T, H) of the last layer."""
        return self.layers(text, length)[-1]

    def of_ids(self, ids: list[int]) -> np.ndarray:
        with torch.no_grad():
            return self.model(torch.tensor([ids])).last_hidden_state[0].numpy()


@pytest.fixture(scope="module")
def plain(tiny_checkpoint: Path) -> Plain:
    return Plain(tiny_checkpoint)


POOLED: dict[str, Any] = {
    "mean": lambda h: h.mean(0), "cls": lambda h: h[0], "max": lambda h: h.max(0), "lasttoken": lambda h: h[-1],
    "mean_sqrt_len_tokens": lambda h: h.sum(0) / len(h) ** 0.5,
    "weightedmean": lambda h: np.average(h, axis=0, weights=np.arange(1, len(h) + 1)),
}  # fmt: skip


@pytest.mark.parametrize("pooling", POOLED)
def test_pooling_is_that_of_plain_transformers(pooling: str, plain: Plain, tiny_checkpoint: Path) -> None:
    found = Embedder.load(tiny_checkpoint, pooling=pooling).vectors(TEXTS)
    assert found.vectors.dtype == np.float32 and found.truncated.tolist() == [False] * 7 + [True]
    for vector, text in zip(found.vectors, TEXTS, strict=True):
        assert np.abs(vector - POOLED[pooling](plain.states(text))).max() < 1e-5


@pytest.mark.parametrize("combine", ["concat", "sum", "mean"])
def test_layers(combine: str, plain: Plain, tiny_checkpoint: Path) -> None:
    """The tiny checkpoint has two, and the embeddings."""
    layers = [-3, -1]
    found = Embedder.load(tiny_checkpoint, layers=layers, combine=combine).vectors(TEXTS).vectors
    for vector, text in zip(found, TEXTS, strict=True):
        parts = [plain.layers(text)[layer] for layer in layers]
        joined = (
            np.concatenate(parts, 1) if combine == "concat" else np.add(*parts) / (1 + (combine == "mean"))
        )
        assert np.abs(vector - joined.mean(0)).max() < 1e-5


def test_each_speed_up_is_off_by_its_key(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The vectors stay, to rounding; `lean` is what oneDNN's layers are asked by, whatever CPU this is."""
    asked: list[bool] = []
    monkeypatch.setattr(products, "faster", lambda: asked.append(True) or False)
    texts = ["a warm film", "a film", "a dull film with a plot that is told twice"]
    expected = Embedder.load(tiny_checkpoint).vectors(texts).vectors
    assert asked
    asked.clear()
    padded = Embedder.load(tiny_checkpoint, unpad=False, lean=False)
    assert not asked and padded.encoder.unpadding is None
    assert np.abs(padded.vectors(texts).vectors - expected).max() < 1e-6
    assert not asked


@pytest.mark.parametrize("name", ["unpad", "lean", "windows"])
def test_a_switch_is_true_or_false(name: str, tiny_checkpoint: Path) -> None:
    """A string, which Python takes for true, is refused."""
    with pytest.raises(InputError, match="not 'false'") as caught:
        Embedder.load(tiny_checkpoint, **{name: "false"})
    assert caught.value.where == name


def test_an_embedder_has_its_settings(tiny_checkpoint: Path) -> None:
    """What is said beside one that is loaded would go unheard."""
    embedder = Embedder.load(tiny_checkpoint)
    with pytest.raises(InputError, match="has its settings already") as caught:
        bert_ft.embed(embedder, "a film", lean=False, normalize=True, quiet=True)
    assert caught.value.where == "lean, normalize"


def test_equal_texts_are_computed_once_and_empty_ones_are_zeros(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedder = Embedder.load(tiny_checkpoint)
    computed: list[str] = []
    monkeypatch.setattr(
        Embedder,
        "_block",
        lambda self, block, real=Embedder._block: computed.extend(block) or real(self, block),
    )
    found = embedder.vectors(["a film", "", "a film", " \n", "a plot"])
    assert computed == ["a film", "", " \n", "a plot"] and found.empty.tolist() == [
        False,
        True,
        False,
        True,
        False,
    ]
    assert np.array_equal(found.vectors[0], found.vectors[2]) and found.vectors.any(1).tolist() == [
        True,
        False,
        True,
        False,
        True,
    ]
    assert embedder.vectors([""]).vectors.shape == (1, 32) and embedder.vectors([]).vectors.shape == (0, 32)


# --- what is longer than the encoder ----------------------------------------------------------------------------------


def windows_of(ids: list[int], length: int, plain: Plain) -> list[tuple[int, int, np.ndarray]]:
    """(first token, the one behind the last, states with [CLS] and [SEP]): a quarter is shared, at least."""
    room = length - 2
    cls, sep = plain.tokenizer.cls_token_id, plain.tokenizer.sep_token_id
    starts = sorted({min(start, max(0, len(ids) - room)) for start in range(0, len(ids), room - room // 4)})
    return [(a, a + room, plain.of_ids([cls, *ids[a : a + room], sep])) for a in starts]


def test_a_long_text_is_read_whole(plain: Plain, tiny_checkpoint: Path) -> None:
    """Each token once, with the state of the window in which it is furthest from the edges."""
    text = " ".join(SENTENCES * 3)
    ids = plain.tokenizer(text, add_special_tokens=False, truncation=False)["input_ids"]
    windows = windows_of(ids, 40, plain)
    assert len(windows) > 5
    embedder = Embedder.load(tiny_checkpoint, windows=True, max_length=40)
    states, spans = next(embedder._states([text]))
    assert len(states) == len(spans) == len(ids)
    for token, state in enumerate(states):
        room = [min(token - a, b - 1 - token) for a, b, _ in windows]
        best = [
            h[1 + token - a]
            for (a, _, h), most in zip(windows, room, strict=True)
            if most >= max(room) - 1 and most >= 0
        ]
        assert min(np.abs(state - each).max() for each in best) < 1e-5
    frames = np.concatenate([h[[0, -1]] for *_, h in windows])
    whole = embedder.vectors([text, "a film"])
    assert np.abs(whole.vectors[0] - np.concatenate([states, frames]).mean(0)).max() < 1e-5
    assert (
        np.abs(whole.vectors[1] - plain.states("a film").mean(0)).max() < 1e-5 and not whole.truncated.any()
    )
    cls = (
        Embedder.load(tiny_checkpoint, windows=True, max_length=40, pooling="cls").vectors([text]).vectors[0]
    )
    assert np.abs(cls - np.mean([h[0] for *_, h in windows], 0)).max() < 1e-5


def test_words_of_a_long_text_among_others(tiny_checkpoint: Path) -> None:
    """50 pages, between texts that have no token and a short one; each as it is alone."""
    book = " ".join(SENTENCES * 170)
    embedder = Embedder.load(tiny_checkpoint)
    texts = ["", "a film", " ", book, "\u200b", "a film", ""]
    found = list(embedder.words(texts))
    assert [len(each.words) for each in found] == [0, 2, 0, len(words.split([book]).words), 1, 2, 0]
    assert (
        len(found[3].words) > 16_000 and np.isfinite(found[3].vectors).all() and found[3].vectors.any(1).all()
    )
    assert not found[4].vectors.any(), "no token"
    for each, text in zip(found[:2], texts[:2], strict=True):
        [alone] = embedder.words([text])
        assert alone.words == each.words and np.abs(alone.vectors - each.vectors).max(initial=0) < 1e-5


# --- words ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pooling", "pooled"),
    [("mean", lambda h: h.mean(0)), ("max", lambda h: h.max(0)), ("first", lambda h: h[0])],
)
def test_words_are_pooled_from_their_tokens(
    pooling: str, pooled: Any, plain: Plain, tiny_checkpoint: Path
) -> None:
    texts = ["unbelievable films , sequels", "Café！北京", "a warm-hearted film"]
    for text, found in zip(texts, Embedder.load(tiny_checkpoint).words(texts, pooling), strict=True):
        own = plain.tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
        for word, (start, end), vector in zip(found.words, found.spans, found.vectors, strict=True):
            assert word == text[start:end]
            mine = [i for i, (a, b) in enumerate(own) if a < end and b > start]
            assert mine and np.abs(vector - pooled(plain.states(text)[mine])).max() < 1e-5
    assert next(Embedder.load(tiny_checkpoint).words(["北京 is"])).words == ["北", "京", "is"], (
        "each character by itself"
    )


def test_spans_of_a_segmenter(plain: Plain, tiny_checkpoint: Path) -> None:
    embedder = Embedder.load(tiny_checkpoint)
    text = "我在北京大学"
    [found] = embedder.words([text], spans=[[(0, 1), (1, 2), (2, 6)]])
    assert found.words == ["我", "在", "北京大学"]
    assert np.abs(found.vectors[2] - plain.states(text)[3:7].mean(0)).max() < 1e-5
    with pytest.raises(InputError, match="there is nothing from 2 to 7 in a text of 6 characters"):
        list(embedder.words([text], spans=[[(2, 7)]]))


@cache
def loaded(folder: Path) -> Embedder:
    return Embedder.load(folder)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=60), min_size=1, max_size=3))
def test_any_text_gives_back_its_words(tiny_checkpoint: Path, texts: list[str]) -> None:
    embedder = loaded(tiny_checkpoint)
    found = list(embedder.words(texts))
    assert len(found) == len(texts)
    for text, each in zip(texts, found, strict=True):
        edges = [0, *each.spans.ravel().tolist(), len(text)]
        assert edges == sorted(edges) and len(each.words) == len(each.vectors)
        assert each.words == [text[start:end] for start, end in each.spans.tolist()] and all(each.words)
        gaps = [text[a:b] for a, b in zip(edges[::2], edges[1::2], strict=True)]
        assert not "".join(gaps).strip(), "nothing but white space lies between them"


# --- what a sentence-transformers folder declares ---------------------------------------------------------------------


def declared(
    tiny: Path, folder: Path, *modules: tuple[str, str, dict[str, Any]], **files: dict[str, Any]
) -> Path:
    """A folder as sentence-transformers writes it, of the older kind."""
    shutil.copytree(tiny, folder)
    listed = [("Transformer", "", {}), *modules]
    (folder / "modules.json").write_text(json.dumps([
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, path, _) in enumerate(listed)]))  # fmt: skip
    for _, path, config in modules:
        (folder / path).mkdir()
        (folder / path / "config.json").write_text(json.dumps(config))
    for name, value in files.items():
        (folder / f"{name}.json").write_text(json.dumps(value))
    return folder


POOLING = (
    "Pooling",
    "1_Pooling",
    {"word_embedding_dimension": 32, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True},
)
NORMALIZE = ("Normalize", "2_Normalize", {})


def test_what_a_folder_declares_is_used(plain: Plain, tiny_checkpoint: Path, tmp_path: Path) -> None:
    bert = {"max_seq_length": 12, "do_lower_case": False}
    st_config = {
        "prompts": {"query": "the plot: ", "passage": ""},
        "default_prompt_name": "query",
        "truncate_dim": 20,
    }
    folder = declared(
        tiny_checkpoint,
        tmp_path / "st",
        POOLING,
        NORMALIZE,
        sentence_bert_config=bert,
        config_sentence_transformers=st_config,
    )

    def unit(text: str, length: int = 12) -> np.ndarray:
        mean = plain.states(text, length).mean(0)
        return mean / np.linalg.norm(mean)

    embedder = Embedder.load(folder)
    assert embedder.encoder.max_length == 12 and embedder.size == 20
    for text, vector in zip(TEXTS, embedder.vectors(TEXTS).vectors, strict=True):
        assert np.abs(vector - unit(f"the plot: {text}")[:20]).max() < 1e-5
    other = Embedder.load(folder, prompt_name="passage", max_length=20, dimensions=32, normalize=False)
    assert np.abs(other.vectors(TEXTS).vectors[0] - plain.states(TEXTS[0], 20).mean(0)).max() < 1e-5
    short = Embedder.load(folder, prompt="", dimensions=8, normalize=True).vectors(TEXTS).vectors
    assert np.allclose(np.linalg.norm(short, axis=1), 1, atol=1e-6)
    assert np.abs(short[0] * np.linalg.norm(unit(TEXTS[0])[:8]) - unit(TEXTS[0])[:8]).max() < 1e-5
    own = Embedder.load(folder, pooling="max", prompt="")
    assert own.size == 32 and np.allclose(np.linalg.norm(own.vectors(TEXTS).vectors, axis=1), 1, atol=1e-6)
    with pytest.raises(InputError, match="there is no prompt 'queri'"):
        Embedder.load(folder, prompt_name="queri")
    with pytest.raises(InputError, match="the prompt has 12 tokens, which leaves no room"):
        Embedder.load(folder, prompt="a lazy sequel that nobody asked for , , ,")


def test_a_prompt_that_pooling_leaves_out(plain: Plain, tiny_checkpoint: Path, tmp_path: Path) -> None:
    """With it what stands before it; in every window of a long text."""
    config = {"pooling_mode": "mean", "include_prompt": False}
    folder = declared(tiny_checkpoint, tmp_path / "st", ("Pooling", "1_Pooling", config))
    embedder = Embedder.load(folder, prompt="the plot: ", windows=True)
    states = plain.states("the plot: is dull")
    assert plain.tokenizer.convert_ids_to_tokens(plain.tokenizer("the plot: is dull")["input_ids"])[4] == "is"
    assert np.abs(embedder.vectors(["is dull"]).vectors[0] - states[4:].mean(0)).max() < 1e-5
    windows = embedder.encoder.tokenizer, ["is dull " * 200], 40
    from bert_ft.modeling.vectors.windows import cut

    made = cut(*windows, prompt="the plot: ", counts_prompt=False, whole=True)
    ids, offsets = made.features.tokens["input_ids"], made.features.offsets
    heads = {tuple(ids[a : a + 4].tolist()) for a in offsets[:-1]}
    assert len(made.features) > 5 and len(heads) == 1, "[CLS] the plot :"
    assert made.features.places["counted"].sum() == made.lengths[0] + len(made.features), (
        "tokens once, and each [SEP]"
    )


def test_dense(plain: Plain, tiny_checkpoint: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    weight, bias = torch.randn(5, 32), torch.randn(5)
    dense = ("Dense", "2_Dense", {"in_features": 32, "out_features": 5, "bias": True,
                                  "activation_function": "torch.nn.modules.activation.Tanh"})  # fmt: skip
    folder = declared(tiny_checkpoint, tmp_path / "st", POOLING, dense)
    save_file({"linear.weight": weight, "linear.bias": bias}, folder / "2_Dense" / "model.safetensors")
    expected = np.tanh(weight.numpy() @ plain.states(TEXTS[0]).mean(0) + bias.numpy())
    assert np.abs(Embedder.load(folder).vectors(TEXTS).vectors[0] - expected).max() < 1e-5
    (folder / "2_Dense" / "model.safetensors").unlink()
    torch.save({"linear.weight": weight, "linear.bias": bias}, folder / "2_Dense" / "pytorch_model.bin")
    assert np.abs(Embedder.load(folder).vectors(TEXTS).vectors[0] - expected).max() < 1e-5
    other = Embedder.load(folder, pooling="cls")
    assert (
        other.size == 32 and "left out, since pooling or layers are named: the folder's Dense" in other.notes
    )


@pytest.mark.parametrize(("modules", "files", "message"), [
    ([("LSTM", "1_LSTM", {})], {}, "behind the encoder comes LSTM, not Pooling"),
    ([POOLING, ("WordWeights", "2_W", {})], {}, "its module WordWeights is not known"),
    ([("Pooling", "1_Pooling", {"pooling_mode": "attention"})], {}, "the pooling ['attention'] is not known"),
    ([POOLING, ("Dense", "2_Dense", {"activation_function": "os.system"})], {}, "its activation os.system is not known"),
    ([POOLING, ("Dense", "2_Dense", {})], {}, "the module has no weights"),
    ([POOLING], {"sentence_bert_config": {"max_seq_length": "long"}}, "'max_seq_length' has to be a whole number"),
    ([POOLING], {"sentence_bert_config": {"max_seq_length": 500}}, "max_length = 500, but the checkpoint has 128 positions"),
    ([POOLING], {"config_sentence_transformers": {"prompts": {"a": 1}}}, "prompts have to be texts by name"),
    ([POOLING], {"config_sentence_transformers": {"truncate_dim": 64}}, "64 dimensions, but the vectors have 32"),
])  # fmt: skip
def test_a_folder_at_fault(
    modules: Any, files: Any, message: str, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    folder = declared(tiny_checkpoint, tmp_path / "st", *modules, **files)
    with pytest.raises(InputError) as error:
        Embedder.load(folder)
    assert message in str(error.value)


def test_a_folder_of_the_hub(plain: Plain, tiny_checkpoint: Path, tmp_path: Path) -> None:
    """From the cache; where that has a checkpoint and no modules.json, it is not known whether one is declared."""
    from huggingface_hub import constants

    folder = declared(tiny_checkpoint, tmp_path / "st", POOLING, NORMALIZE)
    cache = Path(constants.HF_HUB_CACHE)
    pages.fill_cache(cache, {"someone/vectors"}, folder)
    pages.fill_cache(cache, {"someone/plain"}, tiny_checkpoint)
    mean = plain.states(TEXTS[0]).mean(0)
    found = Embedder.load("someone/vectors")
    assert np.abs(found.vectors(TEXTS).vectors[0] - mean / np.linalg.norm(mean)).max() < 1e-5
    bare = Embedder.load("someone/plain")
    assert np.abs(bare.vectors(TEXTS).vectors[0] - mean).max() < 1e-5
    assert not any("modules.json" in note for note in found.notes)
    assert any("whether it declares a pooling is not known" in note for note in bare.notes)
    for name in ("vectors", "plain"):
        shutil.rmtree(cache / f"models--someone--{name}")


class Hostile:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("touched"),))


def test_dense_weights_that_are_a_pickle_are_refused(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = declared(tiny_checkpoint, tmp_path / "st", POOLING, ("Dense", "2_Dense", {}))
    torch.save({"linear.weight": Hostile()}, folder / "2_Dense" / "pytorch_model.bin")
    with pytest.raises(InputError, match="corrupt, or contains more than weights"):
        Embedder.load(folder)
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize(
    "text", ["{", "{}", '[{"type": 5, "path": ""}]', '[{"type": "m.Transformer", "path": "../x"}]', "[]"]
)
def test_modules_that_can_not_be_read(text: str, tiny_checkpoint: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_checkpoint, tmp_path / "st")
    (tmp_path / "st" / "modules.json").write_text(text)
    with pytest.raises(InputError, match=r"modules\.json"):
        Embedder.load(tmp_path / "st")


@pytest.mark.parametrize(("settings", "message"), [
    ({"pooling": "median"}, "pooling: 'median' is not known"),
    ({"layers": [-1], "combine": "product"}, "combine: 'product' is not known"),
    ({"layers": [7]}, "there is no layer 7"),
    ({"layers": []}, "no layer is named"),
    ({"dimensions": 33}, "33 dimensions, but the vectors have 32"),
    ({"prompt": "a", "prompt_name": "b"}, "a prompt and the name of one"),
])  # fmt: skip
def test_settings_at_fault(settings: dict[str, Any], message: str, tiny_checkpoint: Path) -> None:
    with pytest.raises(InputError) as error:
        Embedder.load(tiny_checkpoint, **settings)
    assert message in str(error.value)


def test_no_cls_where_there_is_none(tiny_checkpoint: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "bare")
    kept = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps(kept | {"post_processor": None}))
    (folder / "tokenizer_config.json").write_text(json.dumps(
        {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]", "unk_token": "[UNK]"}))  # fmt: skip
    with pytest.raises(InputError, match="sets no token before a text, so there is no cls"):
        Embedder.load(folder, pooling="cls")


def test_one_call(tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vectors = bert_ft.embed(str(tiny_checkpoint), ["a film", "", "fine " * 200], normalize=True)
    assert isinstance(vectors, np.ndarray) and np.allclose(
        np.linalg.norm(vectors, axis=1), [1, 0, 1], atol=1e-6
    )
    told = capsys.readouterr().err
    assert "1 of 3 texts are longer than 128 tokens" in told and "1 of 3 texts have no token" in told
    embedder = Embedder.load(tiny_checkpoint)
    half, small = (
        bert_ft.embed(embedder, "a film", dtype=dtype, quiet=True) for dtype in ("float16", "int8")
    )
    assert half.dtype == np.float16 and small.dtype == np.int8 and abs(small).max() == 127  # type: ignore[union-attr]
    [found] = bert_ft.embed(embedder, "a film", words=True, pooling="max", quiet=True)
    assert found.words == ["a", "film"] and found.vectors.shape == (2, 32)
    with pytest.raises(InputError, match="input 2: this is no text, but int: 5"):
        embedder.vectors(["a", 5])  # type: ignore[list-item]
    with pytest.raises(InputError, match="input 1: this text holds half of a character"):
        embedder.vectors(["\ud83d"])
