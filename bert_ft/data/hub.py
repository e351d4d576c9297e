"""The hub, asked once whether it is there: its clients would try each file for half a minute before they use their caches."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from bert_ft.errors import InputError


@contextmanager
def reached() -> Iterator[None]:
    """While it lasts, the hub's clients use their caches alone if the hub can't be reached."""
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
        get_session().head(endpoint, timeout=5)  # the client's own session knows the proxies; any answer will do
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
    """The `datasets.DatasetBuilder` of a data set with all its splits in the cache: `as_dataset(split=...)` gives one."""
    import datasets

    datasets.disable_progress_bars()
    with reached():
        # the hub's own Parquet copy of a data set that is a script has folders for configurations
        place = {"data_dir" if revision == "refs/convert/parquet" else "name": name}
        builder = datasets.load_dataset_builder(path, revision=revision, **place)
        _stay_inside(builder, path)
        builder.download_and_prepare()
    return builder


def _stay_inside(builder: Any, path: str) -> None:
    """Refuses a data set whose README names files of another place: of this machine, of another repository, of a server.

    Raises:
        InputError: the first of them.
    """
    base = str(builder.base_path) if "://" in str(builder.base_path or "") else str(Path(path).resolve())
    home = base.rstrip("/") + "/"
    for file in (str(file) for files in (builder.config.data_files or {}).values() for file in files):
        *archives, place = file.split("::")  # zip://inner.csv::archive.zip
        whole = place if "://" in place else os.path.abspath(place)
        if not whole.startswith(home) or ".." in whole.split("/") or not all("://" in hop for hop in archives):
            raise InputError(f"its README names the data file '{file}', which is not in the data set", where=path,
                             remedy="name files yourself: --train FILE; or take another data set")  # fmt: skip
