"""Built-in tasks on their authors' own files: small ones of the same form."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bert_ft import families, load_task
from bert_ft.config.catalog import builtin
from bert_ft.data import loading
from bert_ft.errors import InputError
from bert_ft.tools.check import check

NOT_PUBLIC = {"ontonotes5": "the LDC's licence"}
OWN = {"gazette", "almanac"}
"""Tasks whose rows come with the package."""


def write(folder: Path, **files: str | bytes) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def emotion(folder: Path) -> dict[str, list[Any]]:
    write(
        folder / "emotion",
        **{
            "train.txt": "i feel fine;joy\ni am in two;fear\n",
            "val.txt": "text;label_name\ni feel low;sadness\n",
            "test.txt": "i am cross;anger\n",
        },
    )
    return {
        "train": [("i feel fine", "joy"), ("i am in two", "fear")],
        "validation": [("i feel low", "sadness")],
        "test": [("i am cross", "anger")],
    }


def imdb(folder: Path) -> dict[str, list[Any]]:
    root = folder / "aclImdb"
    write(
        root,
        **{
            f"train/{label}/{k}_{k}.txt": f"{label} film {k}<br />"
            for label in ("neg", "pos")
            for k in range(9)
        },
    )
    write(
        root,
        **{
            "train/unsup/0_0.txt": "of no label",
            "train/labeledBow.feat": "0 1",
            "test/neg/0_2.txt": "dull",
            "test/pos/0_9.txt": "naïve, good",
        },
    )
    everything = [(f"{label} film {k}<br />", label) for label in ("neg", "pos") for k in range(9)]
    return {"all": everything, "test": [("dull", "neg"), ("naïve, good", "pos")]}


def rotten_tomatoes(folder: Path) -> dict[str, list[Any]]:
    lines = {label: [f"a {label} film , na\xefve {k} " for k in range(10)] for label in ("pos", "neg")}
    write(
        folder / "rt-polaritydata",
        **{f"rt-polarity.{label}": "\n".join(of).encode("latin-1") + b"\n" for label, of in lines.items()},
    )
    part = {"train": range(8), "validation": range(8, 9), "test": range(9, 10)}
    return {
        name: [(lines[label][k].strip(), label) for label in ("pos", "neg") for k in of]
        for name, of in part.items()
    }


def ag_news(folder: Path) -> dict[str, list[Any]]:
    rows = [f'"{1 + k % 4}","Title {k}","He said ""go"", then \\\\left {k}."' for k in range(40)]
    write(folder / "ag_news_csv", **{"train.csv": "\n".join(rows) + "\n", "test.csv": rows[1] + "\n"})
    names = ["World", "Sports", "Business", "Sci/Tech"]
    texts = [(f'Title {k} He said "go", then \\\\left {k}.', names[k % 4]) for k in range(40)]
    return {"all": texts, "test": [texts[1]]}


def trec(folder: Path) -> dict[str, list[Any]]:
    kinds = ["DESC:manner", "ENTY:cremat", "ABBR:exp", "NUM:date"]
    lines = [f"{kinds[k % 4]} What is caf\xe9 {k}: a b ?" for k in range(40)]
    write(
        folder,
        **{
            "train_5500.label": "\n".join(lines).encode("latin-1"),
            "TREC_10.label": lines[2].encode("latin-1"),
        },
    )
    rows = [(f"What is caf\xe9 {k}: a b ?", kinds[k % 4].split(":")[0]) for k in range(40)]
    return {"all": rows, "test": [rows[2]]}


def xnli(folder: Path) -> dict[str, list[Any]]:
    head = "language\tgold_label\tsentence1_binary_parse\tsentence1\tsentence2\tpairID\n"
    rows = 'de\tneutral\t( a )\tein Satz\tnoch einer\t1\nen\tentailment\t( a )\ta "premise\tanother\t1\n'
    write(folder / "XNLI-1.0", **{"xnli.dev.tsv": head + rows, "xnli.test.tsv": head + rows})
    write(
        folder / "XNLI-MT-1.0" / "multinli",
        **{
            "multinli.train.en.tsv": "premise\thypo\tlabel\nit rains\tit is dry\tcontradictory\nit rains\tit is wet\tentailment\n"
        },
    )
    dev = [('a "premise', "another", "entailment")]
    return {
        "train": [("it rains", "it is dry", "contradiction"), ("it rains", "it is wet", "entailment")],
        "validation": dev,
        "test": dev,
    }


def ocnli(folder: Path) -> dict[str, list[Any]]:
    row = (
        '{{"level":"medium","sentence1":"好的{0}","sentence2":"不好","label":"{1}","genre":"tv","id":{0}}}\n'
    )
    write(
        folder / "ocnli_public",
        **{
            "train.50k.json": row.format(1, "neutral") + row.format(2, "-") + row.format(3, "entailment"),
            "dev.json": row.format(4, "contradiction"),
            "test.json": '{"sentence1": "甲", "sentence2": "乙"}\n',
        },
    )
    return {
        "train": [("好的1", "不好", "neutral"), ("好的3", "不好", "entailment")],
        "validation": [("好的4", "不好", "contradiction")],
        "test": [("甲", "乙", None)],
    }


def msra_ner(folder: Path) -> dict[str, list[Any]]:
    text = "中\tB-ORG\n共\tI-ORG\n说\tO\n\n北\tB-LOC\n京\tI-LOC\n\n"
    write(folder / "MSRA", **{"msra_train_bio.txt": text, "msra_test_bio.txt": text})
    rows = [(["中", "共", "说"], ["B-ORG", "I-ORG", "O"]), (["北", "京"], ["B-LOC", "I-LOC"])]
    return {"train": rows, "validation": rows}


def wikiann(folder: Path) -> dict[str, list[Any]]:
    text = "en:Rome\tB-LOC\nen::\tO\n\nen:Anna\tB-PER\nen:Bell\tI-PER\n\n"
    write(folder / "en", train=text, dev=text, test=text)
    rows = [(["Rome", ":"], ["B-LOC", "O"]), (["Anna", "Bell"], ["B-PER", "I-PER"])]
    return {"train": rows, "validation": rows, "test": rows}


def ncbi_disease(folder: Path) -> dict[str, list[Any]]:
    text = (
        "1|t|Of APC tumours.\n1|a|Colon cancer and ALS.\n1\t3\t14\tAPC tumours\tModifier\tD1\n"
        "1\t16\t28\tColon cancer\tSpecificDisease\tD2\n\n2|t|None.\n2|a|\n\n"
    )
    write(folder, **{f"NCBI{name}set_corpus.txt": text for name in ("train", "develop", "test")})
    words = ["Of", "APC", "tumours", ".", "Colon", "cancer", "and", "ALS", "."]
    tags = ["O", "B-Disease", "I-Disease", "O", "B-Disease", "I-Disease", "O", "O", "O"]
    rows = [(words, tags), (["None", "."], ["O", "O"])]
    return {"train": rows, "validation": rows, "test": rows}


def bc5cdr(folder: Path) -> dict[str, list[Any]]:
    note = '<annotation id="{0}"><infon key="type">{1}</infon><location offset="{2}" length="{3}"/><text>{4}</text></annotation>'
    text = (
        '<?xml version="1.0"?><!DOCTYPE collection SYSTEM "BioC.dtd"><collection><source/><date/><key/><document><id>1</id>'
        "<passage><offset>0</offset><text>Naloxone reverses.</text>"
        + note.format(0, "Chemical", 0, 8, "Naloxone")
        + "</passage><passage><offset>19</offset><text>In hypertensive rats.</text>"
        + note.format(1, "Disease", 22, 12, "hypertensive")
        + "</passage></document></collection>"
    )
    names = ("Training", "Development", "Test")
    write(folder / "CDR_Data" / "CDR.Corpus.v010516", **{f"CDR_{name}Set.BioC.xml": text for name in names})
    rows = [
        (["Naloxone", "reverses", "."], ["B-Chemical", "O", "O"]),
        (["In", "hypertensive", "rats", "."], ["O", "B-Disease", "O", "O"]),
    ]
    return {"train": rows, "validation": rows, "test": rows}


def chnsenticorp(folder: Path) -> dict[str, list[Any]]:
    """The header line of the authors; a copy without one has the text first."""
    write(
        folder / "chnsenticorp",
        **{"train.tsv": "label\ttext_a\n1\t房间很大。\n0\t“书”没有封面\n", "dev.tsv": "屏幕太暗\tnegative\n"},
    )
    return {
        "train": [("房间很大。", "positive"), ("“书”没有封面", "negative")],
        "validation": [("屏幕太暗", "negative")],
    }


def lcqmc(folder: Path) -> dict[str, list[Any]]:
    rows = '怎么"做鱼\t鱼怎么做？\t1\n今天下雨吗\t明天下雨吗\t0\n'
    write(
        folder / "lcqmc", **{"train.tsv": "text_a\ttext_b\tlabel\n" + rows, "dev.tsv": rows, "test.tsv": rows}
    )
    expected = [('怎么"做鱼', "鱼怎么做？", "same"), ("今天下雨吗", "明天下雨吗", "different")]
    return {"train": expected, "validation": expected, "test": expected}


def bq_corpus(folder: Path) -> dict[str, list[Any]]:
    rows = "怎么还款\t还款的方法\t1\n额度是多少\t额度何时有\t0\n"
    write(
        folder / "bq_corpus",
        **{"train.tsv": rows, "dev.tsv": "sentence1\tsentence2\tlabel\n" + rows, "test.tsv": rows},
    )
    expected = [("怎么还款", "还款的方法", "same"), ("额度是多少", "额度何时有", "different")]
    return {"train": expected, "validation": expected, "test": expected}


def thucnews(folder: Path) -> dict[str, list[Any]]:
    names = ["体育", "财经", "房产", "家居", "教育", "科技", "时尚", "时政", "游戏", "娱乐"]
    rows = [(f'{name}的"新闻，第{k}条。 长', name) for k, name in enumerate(names)]
    text = "".join(f"{name}\t{news}\n" for news, name in rows)
    write(folder / "cnews", **{f"cnews.{split}.txt": text for split in ("train", "val", "test")})
    return {"train": rows, "validation": rows, "test": rows}


MAKERS: dict[str, Callable[[Path], dict[str, list[Any]]]] = {
    maker.__name__: maker for maker in (emotion, imdb, rotten_tomatoes, ag_news, trec, xnli, ocnli, msra_ner, wikiann,
                                   ncbi_disease, bc5cdr, chnsenticorp, lcqmc, bq_corpus, thucnews)
}  # fmt: skip


@pytest.mark.parametrize("name", MAKERS)
def test_the_authors_files(tmp_path: Path, name: str) -> None:
    expected = MAKERS[name](tmp_path)
    task = load_task(name).override({"run.data_dir": str(tmp_path)})
    splits = loading.load(task, families.find(task.family))
    roles = ("tokens", "tags") if task.family == "ner" else ("text", "text_pair", "label")
    found = {
        set_name: list(
            zip(
                *(rows.table[role].to_pylist() for role in roles if role in rows.table.column_names),
                strict=True,
            )
        )
        for set_name, rows in splits.all().items()
    }
    if "all" in expected:  # of which a share is held out
        found["all"] = sorted(found.pop("train") + found.pop("validation"))
        expected["all"] = sorted(expected["all"])
    assert found == expected


def test_a_test_file_that_the_task_does_not_read_by_itself(tmp_path: Path) -> None:
    chnsenticorp(tmp_path)
    write(tmp_path / "chnsenticorp", **{"test.tsv": "qid\tlabel\ttext_a\n0\t1\t位置好\n"})
    changes = {"run.data_dir": str(tmp_path), "data.original.test": "test.tsv"}
    splits = loading.load(load_task("chnsenticorp").override(changes), families.find("classification"))
    assert splits.test["test"].table.select(["text", "label"]).to_pylist() == [
        {"text": "位置好", "label": "positive"}
    ]


def test_every_task_knows_its_authors_files() -> None:
    without = {name for name in builtin() if load_task(name).data.original is None}
    assert without == OWN | set(NOT_PUBLIC)


def test_ax_as_the_site_and_as_the_download_script_have_it(tmp_path: Path) -> None:
    text = "index\tsentence1\tsentence2\n0\ta cat\tan animal\n"
    for folder in ("AX", "diagnostic"):
        write(tmp_path / folder / folder, **{"diagnostic.tsv": text})
        task = load_task("ax").override({"run.data_dir": str(tmp_path / folder)})
        rows = loading.load(task, families.find("classification"), training=False).test["test"]
        assert rows.table["text"].to_pylist() == ["a cat"]
    with pytest.raises(
        InputError, match=r"no 'AX/diagnostic.tsv' and no 'diagnostic/diagnostic.tsv' and no 'diag"
    ):
        loading.load(
            load_task("ax").override({"run.data_dir": str(tmp_path)}),
            families.find("classification"),
            training=False,
        )


def test_a_link_is_read_by_its_own_name(tmp_path: Path) -> None:
    """As the hub's cache has them: data.csv -> ../blobs/0123abcd."""
    write(tmp_path / "blobs", **{"0123abcd": "text,label\ngood,a\nbad,b\n"})
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.csv").symlink_to(Path("../blobs/0123abcd"))
    (tmp_path / "data" / "t.toml").write_text(
        'family = "classification"\n[data]\ntrain = "train.csv"\nevaluate = "train.csv"\n'
    )
    for task in (
        load_task(tmp_path / "data" / "t.toml"),
        load_task("classification").override({"data.path": str(tmp_path / "data"), "data.evaluate": "train"}),
    ):
        assert len(loading.load(task, families.find("classification")).train) == 2


@pytest.mark.parametrize(("content", "pattern", "expected"), [
    ("__label__pos a good film\n\n__label__neg a dull: one\n", r"__label__(?P<label>\S+) (?P<text>.*)",
     [("a good film", "pos"), ("a dull: one", "neg")]),
    ("main-captions\tMSRvid\t2012\t0001\t5.000\tA plane.\tAn \"air plane.\tsource\tx\nm\tM\t2\t3\t1\t好\t片\n",
     r"(?:[^\t]*\t){4}(?P<label>[^\t]*)\t(?P<text>[^\t]*)\t(?P<other>[^\t]*).*", [("A plane.", "5.000"), ("好", "1")]),
])  # fmt: skip
def test_lines_of_a_pattern(
    tmp_path: Path, content: str, pattern: str, expected: list[tuple[str, str]]
) -> None:
    write(tmp_path, **{"a.txt": content})
    sets = {
        "data.train": str(tmp_path / "a.txt"),
        "data.evaluate": str(tmp_path / "a.txt"),
        "data.pattern": pattern,
    }
    rows = loading.load(
        load_task("classification").override(sets), families.find("classification")
    ).train.table
    assert list(zip(rows["text"].to_pylist(), rows["label"].to_pylist(), strict=True)) == expected
    write(tmp_path, **{"a.txt": content + "of no such form"})
    with pytest.raises(
        InputError, match=r"a\.txt, line \d: the line is not as the pattern says: 'of no such"
    ):
        loading.load(load_task("classification").override(sets), families.find("classification"))


def test_the_files_follow_the_name_of_the_configuration(tmp_path: Path) -> None:
    head = "language\tgold_label\tsentence1\tsentence2\n"
    rows = "".join(f"{code}\tneutral\t{text}\t{text}\n" for code, text in (("en", "a cat"), ("zh", "一只猫")))
    write(tmp_path / "XNLI-1.0", **{"xnli.dev.tsv": head + rows, "xnli.test.tsv": head + rows})
    train = "premise\thypo\tlabel\n好\t坏\tcontradictory\n"
    write(tmp_path / "XNLI-MT-1.0" / "multinli", **{"multinli.train.zh.tsv": train})
    changes = {"run.data_dir": str(tmp_path)}
    task = load_task("xnli").override(changes | {"data.name": "zh"})
    for chinese in (task, load_task("xnli-zh").override(changes)):
        splits = loading.load(chinese, families.find("classification"))
        assert splits.train.table["text"].to_pylist() == ["好"]
        assert splits.evaluation["validation"].table["text"].to_pylist() == ["一只猫"]
    with pytest.raises(InputError, match=r"no .*multinli\.train\.en\.tsv"):
        loading.load(task.override({"data.name": "en"}), families.find("classification"))
    with pytest.raises(InputError, match="of one configuration"):
        loading.load(task.override({"data.name": None}), families.find("classification"))


def test_lines_that_a_pattern_does_not_match_are_listed(tmp_path: Path) -> None:
    lines = ["odd" if k % 9 == 0 else f"__label__{'ab'[k % 2]} film {k}" for k in range(30)]
    write(tmp_path, **{"a.txt": "\n\n".join(lines)})
    sets = {"train": str(tmp_path / "a.txt"), "validation": "25%"}
    report = check("classification", **sets, **{"data.pattern": r"__label__(?P<label>\S+) (?P<text>.*)"})
    (refused,) = [finding for finding in report.findings if finding.check == "unreadable"]
    assert refused.places == [f"{tmp_path / 'a.txt'}, line {2 * k + 1}" for k in range(0, 30, 9)]
