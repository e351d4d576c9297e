"""The hub, asked once whether it is there: its clients would try each file for half a minute before they use
their caches."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from bert_ft.errors import InputError

READ = {"arrow", "cache", "conll", "csv", "json", "parquet", "text"}
"""The builders of `datasets` that read tables and texts; others decode what files say of themselves, some
unpickle."""
BUILDERS = {
    "arrow", "audiofolder", "cache", "csv", "generator", "imagefolder", "json", "pandas", "parquet", "pickle",
    "spark", "sql", "text", "videofolder", "webdataset", "xml",
}  # fmt: skip
"""What some version of `datasets` calls a builder, whether or not the one that is installed has it."""
HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


@contextmanager
def reached() -> Iterator[None]:
    """Inside, the hub's clients use their caches alone if the hub can't be reached."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE or _there(constants.ENDPOINT):
        yield
        return
    try:
        _offline(True)
        yield
    finally:
        _offline(False)


def _there(endpoint: str) -> bool:
    from huggingface_hub import get_session

    try:
        # the client's own session knows the proxies; any answer will do
        get_session().head(endpoint, timeout=5)
    except Exception:  # of the library that this version of the client is built on
        return False
    return True


def _offline(whether: bool) -> None:
    from huggingface_hub import constants

    constants.HF_HUB_OFFLINE = whether
    if "datasets" in sys.modules:
        sys.modules["datasets.config"].HF_HUB_OFFLINE = whether  # type: ignore[attr-defined]


@lru_cache(maxsize=4)
def dataset(path: str, name: str | None, revision: str | None) -> Any:
    """The `datasets.DatasetBuilder` of a data set with all its splits in the cache: `as_dataset(split=...)`
    returns one."""
    import datasets

    _refuse_builders(path)
    datasets.disable_progress_bars()
    if "HF_UPDATE_DOWNLOAD_COUNTS" not in os.environ:
        # it would tell the name to a server of Amazon's, whatever HF_ENDPOINT is; a hub counts by itself
        datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False
    with reached():
        # the hub's own Parquet copy of a data set that is a script has folders for configurations
        place = {"data_dir" if revision == "refs/convert/parquet" else "name": name}
        builder = datasets.load_dataset_builder(path, revision=revision, **place)
        _stay_inside(builder, path)
        kinds = {
            base.__module__.split(".")[2]
            for base in type(builder).__mro__
            if base.__module__.startswith("datasets.packaged_modules.")
        }
        if not kinds or not kinds <= READ:
            raise InputError(
                f"its files need the builder '{min(kinds, default='?')}' of `datasets`, which is not used",
                where=path,
                remedy="CSV, JSON, Parquet, Arrow and text files are read",
            )
        builder.download_and_prepare()
    return builder


def _stay_inside(builder: Any, path: str) -> None:
    """Refuses a data set whose README names files of another place: of this machine, of another repository,
    of a server.

    Raises:
        InputError: the first of them.
    """
    base = str(builder.base_path) if "://" in str(builder.base_path or "") else str(Path(path).resolve())
    home = base.rstrip("/") + "/"
    for file in (str(file) for files in (builder.config.data_files or {}).values() for file in files):
        *archives, place = file.split("::")  # zip://inner.csv::archive.zip
        whole = place if "://" in place else os.path.abspath(place)
        if (
            not whole.startswith(home)
            or ".." in whole.split("/")
            or not all("://" in hop for hop in archives)
        ):
            raise InputError(
                f"its README names the data file '{file}', which is not in the data set",
                where=path,
                remedy="name files yourself: --train FILE; or take another data set",
            )


def _refuse_builders(path: str) -> None:
    """Refuses what `datasets` would not take for a repository: the names of its builders, of which "pandas"
    unpickles the files that a task names (in all versions before 5.2), and addresses of other places."""
    from datasets import packaged_modules

    if not Path(path).is_dir() and not HUB_ID.fullmatch(path):
        raise InputError(
            "this is neither a folder nor the id of a data set",
            where=path,
            remedy='data.path = "ORG/NAME", or a folder',
        )
    names = {name.casefold() for name in (*packaged_modules._PACKAGED_DATASETS_MODULES, *BUILDERS)}
    parts = path.casefold().removesuffix(".py").split("/")
    if parts[-1] in names and len(set(parts)) == 1:
        raise InputError(
            f"'{path}' is the name of a builder of `datasets`, not of a data set",
            where=path,
            remedy="name the file: --train FILE; or a data set as ORG/NAME",
        )
