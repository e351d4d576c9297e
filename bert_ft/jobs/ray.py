"""A connection to a Ray cluster. Ray is imported once one is asked for, and by nobody else."""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from bert_ft.errors import InputError

HERE = "ray"
ADDRESS = re.compile(r"ray://(\[[^\]/]+\]|[^:/\[\]]+):(\d{1,5})")
PLACE = re.compile(f"(?:ray://)?{ADDRESS.pattern.removeprefix('ray://')}")
"""What RAY_ADDRESS may name beside "auto"."""
TIMEOUT = 10  # seconds that a cluster's port has to answer
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
"""Environment variables of what is started here, where the user has not set them: nothing is reported to
Ray's makers."""
ALONE = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_MODE": "token"}
"""The same of a cluster that is started here, whose ports would be open on every network: they are on
127.0.0.1 (the name is Ray's; on Linux it says that alone), and ask for the token of this user."""


@contextmanager
def connect(address: str | None) -> Iterator[Any]:
    """A connection to a Ray cluster; its value is the module `ray`. What was begun here ends with it: the
    connection, and a cluster that was started for it. Where this process is connected already, that
    connection is used, and stays.

    Args:
        address: what `--on` takes: "ray://HOST:PORT", the port being that of Ray's client server (10001);
            None or "ray": the cluster that RAY_ADDRESS names ("auto" is the one that this machine belongs
            to), else one that is started here, of this machine alone.
    Raises:
        InputError: Ray is not installed; this is no address; or no cluster answers there.
    """
    where = "" if address in (None, HERE) else str(address)
    match = ADDRESS.fullmatch(where)
    if where and match is None:
        raise InputError(
            "this is no address of a cluster",
            where=f"--on {where}",
            remedy="--on ray, or --on ray://HOST:10001",
        )
    elsewhere = bool(where or os.environ.get("RAY_ADDRESS"))
    with _environment(QUIET if elsewhere else QUIET | ALONE):
        try:
            import ray
        except ImportError:
            raise InputError(
                "Ray is not installed", where="--on", remedy='pip install "bert-ft[ray]"'
            ) from None
        if ray.is_initialized():
            yield ray
            return
        if known := match or PLACE.fullmatch(os.environ.get("RAY_ADDRESS", "")):
            _refuse_silent(where or f"{HERE}, RAY_ADDRESS={known[0]}", known[1].strip("[]"), int(known[2]))
        _initialize(ray, where)
        try:
            yield ray
        finally:
            ray.shutdown()


def _initialize(ray: Any, where: str) -> None:
    """Begins the connection. Ray's own handler of SIGTERM, which would take the place of the caller's, does
    not stay."""
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM)
    known = where or os.environ.get("RAY_ADDRESS")
    own = {} if known else {"include_dashboard": False}
    # not what Ray would look for by itself: a note of the last cluster, which may be gone, costs it minutes
    place = known or "local"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they repeat what the error says
            ray.init(place, log_to_driver=False, logging_level="ERROR", **own)
    except Exception as error:  # Ray's are of a dozen kinds: of another version, of no answer, of no memory
        ray.shutdown()
        cause = " ".join(str(error).split()) or type(error).__name__
        remedy = (
            "it needs the same versions of Ray and Python as this machine; one with tokens also "
            "RAY_AUTH_MODE=token and its token here"
        )
        raise InputError(
            f"the cluster can't be reached: {cause}", where=f"--on {where or HERE}", remedy=remedy
        ) from None
    finally:
        if main and handler is not None:
            signal.signal(signal.SIGTERM, handler)


def _refuse_silent(where: str, host: str, port: int) -> None:
    """Refuses an address where nothing listens; Ray itself would try for half a minute."""
    try:
        socket.create_connection((host, port), TIMEOUT).close()
    except (OSError, OverflowError, UnicodeError) as error:
        raise InputError(
            f"no cluster answers: {error}",
            where=f"--on {where}",
            remedy="HOST is the cluster's head node, PORT that of its client server (10001 by default)"
            if where.startswith("ray://")
            else "name a cluster that runs, or unset RAY_ADDRESS",
        ) from None


@contextmanager
def _environment(own: Mapping[str, str]) -> Iterator[None]:
    """Inside: those of these variables that the user has not set. Ray sets some of its own (RAY_AUTH_MODE),
    which would be read as the user's by the next connection."""
    before = {key: value for key, value in os.environ.items() if key.startswith("RAY_")}
    os.environ.update({**own, **before})
    try:
        yield
    finally:
        for key in [key for key in os.environ if key.startswith("RAY_") and key not in before]:
            del os.environ[key]
