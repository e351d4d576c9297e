"""`model/` is opened by transformers 4.57.6 and by sentence-transformers, in an environment of their own, and gives what
it gives in ours."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import census
import numpy as np
import older_reader
import pytest
import tokenizers as tk
import transformers as tf
import zoo

import bert_ft
from bert_ft import files
from bert_ft.config.schema import RunSpec
from bert_ft.families import fast_tokenizer
from bert_ft.modeling import saved_format, saving, token_types, vocabulary

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
TORCH = re.search(r"^torch==\S+", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
OLDER = "transformers==4.57.6", "sentence-transformers==5.7.0"
SEVEN = ("bert", "roberta", "distilbert", "albert", "electra", "deberta-v2", "modernbert")
Jobs = dict[str, dict[str, Any]]
Read = Callable[..., tuple[dict[str, Any], dict[str, Any]]]
TEXTS: dict[str, list[list[str]]] = {
    "classification": [["Karo dita pane"], ["a"], ["中文 词"], ["Lima " + "dobo kari " * 60]],
    "ner": [["Karo dita pane"], ["a"], ["Lima sole, Oslo! 中文"]],
    "qa": [["who is named", "Karo dita pane"], ["who", "Lima " + "dobo kari " * 60]],
}


# --- the two readers --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def older(pytestconfig: pytest.Config) -> Path:
    """The Python of an environment with the older reader, which stays in pytest's cache."""
    assert TORCH is not None and pytestconfig.cache is not None
    folder = Path(pytestconfig.cache.mkdir("older-reader"))
    python, done = folder / "env" / "bin" / "python", folder / "installed.txt"
    stream = files.locked(folder / "lock", wait=True)
    assert stream is not None
    with stream:  # another process of the tests may want it, too
        if not done.is_file() or done.read_text() != " ".join(OLDER):
            venv.create(folder / "env", with_pip=True, clear=True)
            command = [
                python,
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
                TORCH[0],
                *OLDER,
            ]
            environment = {key: value for key, value in os.environ.items() if key != "PIP_NO_INDEX"}
            installed = subprocess.run(command, capture_output=True, text=True, env=environment)
            if installed.returncode:
                pytest.skip(f"{' and '.join(OLDER)} can't be installed here: {installed.stderr[-300:]}")
            done.write_text(" ".join(OLDER))
    return python


@pytest.fixture
def read(older: Path, tmp_path: Path) -> Read:
    """What both versions make of saved folders: name -> value, ours first; ours warns of nothing, unless `warns`: some
    networks say what they do with any input."""

    def run(python: Path, jobs: Jobs) -> dict[str, Any]:
        tasks, answers = tmp_path / "jobs.json", tmp_path / "answers.json"
        tasks.write_text(json.dumps(jobs))
        command = [python, older_reader.__file__, tasks, answers]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": ""})
        assert not done.returncode, done.stderr[-2000:]
        found: dict[str, Any] = json.loads(answers.read_text())
        return found

    def both(jobs: Jobs, warns: bool = False) -> tuple[dict[str, Any], dict[str, Any]]:
        ours = {name: job for name, job in jobs.items() if job["how"] not in ("scores", "vectors")}
        newer, old = run(Path(sys.executable), ours), run(older, jobs)
        heard = {name: answer["warnings"] for name, answer in newer.items() if jobs[name]["how"] != "states"}
        assert warns or not any(heard.values()), heard
        return tuple({name: answer["value"] for name, answer in each.items()} for each in (newer, old))  # type: ignore[return-value]

    return both


def job(folder: Path, how: str, family: str = "classification") -> dict[str, Any]:
    return {"folder": str(folder), "how": how, "inputs": TEXTS[family]}


def difference(ours: Any, theirs: Any) -> float:
    """The largest difference of two nested lists of numbers; infinite where their shapes, or anything else, differ."""
    if isinstance(ours, dict) and isinstance(theirs, dict) and ours.keys() == theirs.keys():
        return difference([*ours.values()], [theirs[key] for key in ours])
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        return max((difference(*pair) for pair in zip(ours, theirs, strict=True)), default=0.0)
    if isinstance(ours, (int, float)) and isinstance(theirs, (int, float)):
        return abs(ours - theirs)
    return 0.0 if ours == theirs else np.inf


# --- the folders ------------------------------------------------------------------------------------------------------


def checkpoint(name: str, folder: Path) -> Path:
    """A tiny checkpoint that has little as its architecture's defaults are."""
    if (folder / "config.json").is_file():
        return folder
    zoo.checkpoint(name, folder)
    if name == "modernbert":
        config = tf.AutoConfig.from_pretrained(folder)
        config.rope_parameters["full_attention"]["rope_theta"] = 50.0
        config.rope_parameters["sliding_attention"]["rope_theta"] = 7.0
        config.update({"bos_token_id": None, "eos_token_id": None, "num_hidden_layers": 4})
        config.layer_types = ["full_attention", "sliding_attention"] * 2
        del config.global_attn_every_n_layers  # as a config that names its layers alone
        network = tf.ModernBertModel(config)
        network.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`folders(architecture, family, **settings)`: the `model/` of a run of three steps."""
    base = tmp_path_factory.mktemp("older")

    def make(name: str, family: str = "classification", rows: Any = None, **settings: Any) -> Path:
        out = base / "-".join([name, family, *(str(settings[key]) for key in settings if key != "columns")])
        if not out.is_dir():
            several = (rows, rows[:6]) if rows else (zoo.rows(family, 0, 16), zoo.rows(family, 24, 6))
            steps = {} if "method" in settings else {"max_steps": 3, "learning_rate": 1e-3}
            bert_ft.finetune(
                family, str(checkpoint(name, base / "checkpoints" / name)), **steps | settings, train=several[0],
                validation=several[1], batch_size=8, max_length=zoo.MAX, output=out, check=False, quiet=True,
            )  # fmt: skip
        return out / "model"

    return make


ROWS = [
    {"text": text, "text_pair": "sole", "label": i / 3}
    for i, text in enumerate(["Karo pane", "a", "dobo"] * 8)
]
LABELLED = [row | {"label": ["x", "y"][: 1 + i % 2]} for i, row in enumerate(ROWS)]
PAIR = {"text": "text", "text_pair": "text_pair", "label": "label"}
NUMBERS: dict[str, Any] = {"rows": ROWS, "columns": PAIR, "data.problem_type": "regression"}
SETS: dict[str, Any] = {"rows": LABELLED, "columns": PAIR, "data.problem_type": "multi_label_classification"}


# --- what they give ---------------------------------------------------------------------------------------------------


def hold(read: Read, jobs: Jobs, warns: bool = False) -> None:
    ours, theirs = read(jobs, warns)
    failed = {
        name: value for each in (ours, theirs) for name, value in each.items() if isinstance(value, str)
    }
    assert not failed
    differ = {name: gap for name, value in ours.items() if (gap := difference(value, theirs[name])) > 1e-5}
    assert not differ


def test_seven_architectures_give_the_same_logits(read: Read, folders: Callable[..., Path]) -> None:
    jobs = {}
    for name in SEVEN:
        for family in census.FAMILIES:
            folder = folders(name, family)
            assert "computes the same" in saved_format.older(folder)
            jobs[f"{name} {family}"] = job(folder, family, family)
        jobs[f"{name} states"] = job(folders(name, "ner"), "states")
        # the head reads the mean of the tokens: a layer more, or ModernBERT's own setting
        jobs[f"{name} mean"] = job(folders(name, method="features"), "classification")
    hold(read, jobs)


def test_scaled_positions_give_the_same_logits(
    read: Read, folders: Callable[..., Path], tmp_path: Path
) -> None:
    jobs = {}
    for name, scaling in (
        ("linear", {"rope_type": "linear", "factor": 3.0}),
        ("yarn", {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}),
    ):
        model = tf.AutoModelForSequenceClassification.from_pretrained(folders("modernbert"))
        for kind, theta in (("full_attention", 50.0), ("sliding_attention", 7.0)):
            model.config.rope_parameters[kind] = scaling | {"rope_theta": theta}
        saving.save_model(tmp_path / name, model, tf.AutoTokenizer.from_pretrained(folders("modernbert")))
        assert "computes the same" in saved_format.older(tmp_path / name)
        jobs[name] = job(tmp_path / name, "classification")
    hold(read, jobs)


def test_a_wrong_rope_key_is_noticed(read: Read, folders: Callable[..., Path], tmp_path: Path) -> None:
    jobs = {"right": job(folders("modernbert"), "classification")}
    for key in ("global_rope_theta", "local_rope_theta", "global_attn_every_n_layers"):
        folder = tmp_path / key
        shutil.copytree(folders("modernbert"), folder)
        config = json.loads((folder / "config.json").read_text())
        assert key in config
        for wrong, value in (("wrong", config[key] * 3), ("missing", None)):
            shutil.copytree(folder, tmp_path / wrong / key)
            changed = config | {key: value} if value else {k: v for k, v in config.items() if k != key}
            (tmp_path / wrong / key / "config.json").write_text(json.dumps(changed))
            jobs[f"{key} {wrong}"] = job(tmp_path / wrong / key, "classification")
    ours, theirs = read(jobs)
    assert difference(ours["right"], theirs["right"]) < 1e-5
    for name, value in ours.items():
        assert difference(value, ours["right"]) == 0.0  # 5 reads its own keys
        if name != "right":
            assert difference(value, theirs[name]) > 1e-3, name
    with pytest.raises(AssertionError, match="global_rope_theta wrong"):
        hold(read, {"global_rope_theta wrong": jobs["global_rope_theta wrong"]})


def test_pipelines_give_the_same_answers(read: Read, folders: Callable[..., Path]) -> None:
    jobs = {
        "sets": job(folders("bert", **SETS), "classes"),
        "number": job(folders("bert", **NUMBERS), "classes"),
    }
    for name in SEVEN:
        jobs[f"{name} classes"] = job(folders(name), "classes")
        jobs[f"{name} entities"] = job(folders(name, "ner"), "entities", "ner")
    hold(read, jobs)


def test_the_code_of_a_card_of_questions_runs_in_both(read: Read, folders: Callable[..., Path]) -> None:
    ours, theirs = read({name: job(folders(name, "qa"), "code", "qa") for name in SEVEN})
    assert ours == theirs
    for name in SEVEN:  # the first fits one window
        (question, context), *_ = TEXTS["qa"]
        assert ours[name][0] == bert_ft.load(folders(name, "qa"))(question, context)["prediction"]


def test_a_cross_encoder_gives_what_ours_gives(read: Read, folders: Callable[..., Path]) -> None:
    pairs = [*ROWS[:3], {"text": "Lima " + "dobo kari " * 60, "text_pair": "sole"}]
    inputs = [[row["text"], row["text_pair"]] for row in pairs]
    made = {kind: folders("roberta", **settings) for kind, settings in (("number", NUMBERS), ("sets", SETS))}
    before = {}  # the key of sentence-transformers before 4
    for kind, folder in made.items():
        before[f"{kind} before"] = shutil.copytree(folder, folder.parent / "before")
        config = json.loads((folder / "config.json").read_text())
        del config["sentence_transformers"]
        (folder.parent / "before" / "config.json").write_text(json.dumps(config))
    found = read(
        {kind: {"folder": str(at), "how": "scores", "inputs": inputs} for kind, at in (made | before).items()}
    )[1]
    numbers = [answer["prediction"] for answer in bert_ft.load(made["number"]).predict(inputs)]
    shares = [[*answer["probabilities"].values()] for answer in bert_ft.load(made["sets"]).predict(inputs)]
    for suffix in ("", " before"):
        assert found[f"number{suffix}"] == pytest.approx(numbers, abs=1e-5)
        assert np.array(found[f"sets{suffix}"]) == pytest.approx(np.array(shares), abs=1e-5)


def test_sentence_transformers_gives_our_vectors(read: Read, folders: Callable[..., Path]) -> None:
    made = {name: folders(name, "ner") for name in SEVEN}
    found = read({name: job(folder, "vectors") for name, folder in made.items()})[1]
    for name, folder in made.items():
        texts = [text for (text,) in TEXTS["classification"]]
        assert np.array(found[name]) == pytest.approx(bert_ft.embed(folder, texts, quiet=True), abs=1e-5)


def test_a_checkpoints_activation_does_not_outlive_its_head(
    folders: Callable[..., Path], tmp_path: Path
) -> None:
    """Also where a model is trained on, for another kind of labels."""
    number = folders("bert", **NUMBERS)
    run = bert_ft.finetune(
        "classification", str(number), train=zoo.rows("classification", 0, 16), output=tmp_path / "run",
        **{"data.validation": "25%"}, max_steps=1, check=False, quiet=True,
    )  # fmt: skip
    config = json.loads((run.path / "model" / "config.json").read_text())
    assert "sentence_transformers" in json.loads((number / "config.json").read_text())
    assert not {"sentence_transformers", "sbert_ce_default_activation_function"} & config.keys()


def test_all_that_are_said_to_be_the_same(read: Read, folders: Callable[..., Path]) -> None:
    jobs = {}
    for name in zoo.ZOO:
        if name in saved_format.SAME and name not in SEVEN:
            family = census.cells(name)[0]
            jobs[name] = job(folders(name, family), family, family)
    assert {*jobs, *SEVEN} == saved_format.SAME
    hold(read, jobs, warns=True)


# --- tokenizers -------------------------------------------------------------------------------------------------------

KARO = [
    ["Karo DITA pané"],
    ["a"],
    ["中文 词 Lima"],
    ["sole Oslo  x"],
    ["<ent> karo [X1] lima"],
    ["who, is-named?", "a"],
]


def special(tokenizer: Any) -> Any:
    tokenizer.add_special_tokens({"additional_special_tokens": ["<ent>", "[X1]"]})
    return tokenizer


def added(tokenizer: Any) -> Any:
    tokenizer.add_tokens(["karo", "[X1]"])
    return tokenizer


def cased(tokenizer: Any) -> Any:
    tokenizer.backend_tokenizer.normalizer = tk.normalizers.BertNormalizer(
        lowercase=False, strip_accents=True, handle_chinese_chars=False
    )
    return tokenizer


def spaced(tokenizer: Any) -> Any:
    tokenizer.backend_tokenizer.pre_tokenizer = tk.pre_tokenizers.ByteLevel(add_prefix_space=True)
    return tokenizer


def wordpiece(**options: Any) -> Any:
    return zoo.generic("wp", zoo.BERT, "[CLS] $A [SEP]", "[CLS] $A [SEP] $B [SEP]", **options)


TOKENIZERS: dict[str, tuple[str, Callable[[], Any]]] = {
    "cased": ("bert", zoo.of("BertTokenizer", "wp", do_lower_case=False)),
    "accents": ("bert", zoo.of("BertTokenizer", "wp", strip_accents=False)),
    "Chinese in words": ("bert", zoo.of("BertTokenizer", "wp", tokenize_chinese_chars=False)),
    "special": ("bert", lambda: special(zoo.own("BertTokenizer", "wp"))),
    "added": ("bert", lambda: added(zoo.own("BertTokenizer", "wp"))),
    "a file alone": ("bert", lambda: cased(wordpiece())),
    "left": ("bert", lambda: cased(wordpiece(padding_side="left", truncation_side="left"))),
    "special, byte-level": ("roberta", lambda: special(zoo.own("RobertaTokenizer", "bpe"))),
    "white space in spans": ("roberta", zoo.of("RobertaTokenizer", "bpe", trim_offsets=False)),
    "a space before": ("modernbert", lambda: spaced(zoo.framed())),
    "special, a file alone": ("modernbert", lambda: special(zoo.framed())),
    "accents, ALBERT": ("albert", zoo.of("AlbertTokenizer", "uni", do_lower_case=False, keep_accents=True)),
    "lower, DeBERTa": ("deberta-v2", zoo.of("DebertaV2Tokenizer", "uni", do_lower_case=True)),
    "punctuation, DeBERTa": ("deberta-v2", zoo.of("DebertaV2Tokenizer", "uni", split_by_punct=True)),
}


def saved_tokenizers(base: Path) -> Iterator[tuple[str, Path, Any]]:
    """Name, folder and tokenizer of each that is saved; also with the space that words get in training."""
    for number, (name, (kind, make)) in enumerate(TOKENIZERS.items()):
        config = tf.CONFIG_MAPPING[kind]()
        source = base / f"{number}"
        config.save_pretrained(source)
        make().save_pretrained(source)
        for words in (False, True):
            tokenizer, _ = vocabulary.load(RunSpec(), str(source), [text for row in KARO for text in row])
            network = tf.AutoModel.from_config(tf.CONFIG_MAPPING[kind](**zoo.SIZES))
            token_types.set_types(tokenizer, network, pairs=True)
            if words:
                fast_tokenizer.leading_space(tokenizer)
            folder = base / f"{number}-{words}"
            config.save_pretrained(folder)
            saving._save_tokenizer(folder, tokenizer)
            yield f"{name}{', words' if words else ''}", folder, tokenizer


def test_tokenizers_give_the_same_tokens(read: Read, tmp_path: Path) -> None:
    made = {name: (folder, tokenizer) for name, folder, tokenizer in saved_tokenizers(tmp_path)}
    jobs = {name: {"folder": str(at), "how": "encoded", "inputs": KARO} for name, (at, _) in made.items()}
    ours, theirs = read(jobs)
    assert ours == theirs
    for name, (_, tokenizer) in made.items():
        assert [row["input_ids"] for row in ours[name][0]] == [
            tokenizer(*texts)["input_ids"] for texts in KARO
        ]
