"""Where the trials of a search are kept: an SQLite file, a database server, or Optuna's gRPC proxy of one.

A server has what a file has by locks: only one process at a time takes or ends a trial (PostgreSQL, by an
advisory lock), and a trial whose process is gone is known by its heartbeat, which the process writes while it
trains. A password is shown nowhere.
"""

from __future__ import annotations

import hashlib
import os
import re
import sqlite3
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import optuna
import sqlalchemy
from optuna.storages import RDBStorage
from sqlalchemy.exc import SQLAlchemyError

from bert_ft.errors import BertFtError, InputError, MachineError, disk, no_locks

HEARTBEAT = 30  # seconds between two
GRACE = 120  # seconds without one after which a process is taken for dead
CONNECT = 20  # seconds to wait for a server
LOCKED = 60  # seconds that a statement waits for other processes' statements, in an SQLite file
LOCKLESS = 5  # seconds without locks after which a file system is taken for one that has none
POSTGRES = ("postgresql", "postgres")
GRPC = re.compile(r"grpc://(\[[^\]/]+\]|[^:/\[\]@]+):(\d{1,5})/?")
SECRET = re.compile(r"pass(word|wd|phrase)?|secret|token", re.IGNORECASE)
"""Keys of a URL's query whose values are not shown."""


@dataclass
class Database:
    """The storage of a study, and what processes that share it need beside.

    Attributes:
        storage: Optuna's.
        engine: where it is PostgreSQL, for the lock.
        secrets: texts that nobody is shown.
        place: what messages call it.
    """

    storage: Any
    engine: Any = None
    secrets: list[str] = field(default_factory=list)
    place: str = ""
    seen: set[int] = field(default_factory=set)  # trials that this process knows to have a heartbeat

    @contextmanager
    def alone(self, name: str) -> Iterator[None]:
        """Inside, no other process takes or ends a trial of this study, on whichever machine; where the
        storage has no such lock the caller's has to do."""
        if self.engine is None:
            yield
            return
        key = int.from_bytes(
            hashlib.sha256(f"bert-ft search {name}".encode()).digest()[:8], "big", signed=True
        )
        with self.engine.begin() as connection:  # whose end, whatever it is, ends the lock
            connection.execute(sqlalchemy.text("SELECT pg_advisory_xact_lock(:key)"), {"key": key})
            yield

    @property
    def has_heartbeats(self) -> bool:
        """Whether a trial whose process is gone is known by its heartbeat."""
        interval = getattr(self.storage, "get_heartbeat_interval", lambda: None)
        return interval() is not None

    def beat(self, trial: int) -> None:
        """The first heartbeat of the trial of this id, inside the `alone` in which it was taken."""
        if self.has_heartbeats:
            self.storage.record_heartbeat(trial)
            self.seen.add(trial)

    @contextmanager
    def beating(self, trial: int) -> Iterator[None]:
        """Inside, the trial of this id has heartbeats."""
        if not self.has_heartbeats:
            yield
            return
        ended = threading.Event()

        def beat() -> None:
            while not ended.wait(self.storage.get_heartbeat_interval()):
                with suppress(Exception):  # a server that is away for a while: the next one may come through
                    self.storage.record_heartbeat(trial)

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def stale(self, study: int, running: set[int]) -> set[int]:
        """The ids of those running trials of a study whose process is taken for dead. Inside `alone`."""
        if not self.has_heartbeats:
            return set()
        gone = running & set(self.storage._get_stale_trial_ids(study))  # no public function tells
        for trial in running - gone - self.seen:
            # one that was killed before its first heartbeat would never be stale
            self.storage.record_heartbeat(trial)
        self.seen |= running - gone
        return gone

    @contextmanager
    def errors(self) -> Iterator[None]:
        """What goes wrong with the server is one message, without the password."""
        try:
            yield
        except Exception as error:
            if not is_of_storage(error):
                raise
            behind = _behind(error)
            if isinstance(behind, BertFtError):  # of a file without locks
                raise behind from None
            if type(behind) is sqlite3.DatabaseError or str(behind).startswith("no such "):
                raise InputError(
                    f"the search's study is damaged: {self.clean(_cause(error))}",
                    where=self.place,
                    remedy="--output DIR puts a new search elsewhere",
                ) from None
            raise MachineError(
                f"the storage can't be used: {self.clean(_cause(error))}",
                where=self.place,
                remedy="the same command goes on once it can",
            ) from None

    def clean(self, text: str) -> str:
        """The text without what nobody is shown."""
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return text


def is_of_storage(error: BaseException) -> bool:
    """Whether an error is of a database server, or of the way to it."""
    ours = isinstance(error, (SQLAlchemyError, optuna.exceptions.StorageInternalError))
    return ours or type(error).__module__.startswith("grpc")


def opened(storage: Any) -> Database:
    """The storage that a search is given: Optuna's, or its URL.

    Raises:
        InputError: no URL, a driver that is not installed, or no server that answers.
    """
    if isinstance(storage, os.PathLike):
        message = "a path is no storage of a search"
        raise InputError(message, where=f"storage = {storage}", remedy="sqlite:///FILE.db as its URL")
    if not isinstance(storage, str):
        return Database(storage)
    if storage.startswith("grpc:"):
        return _proxy(storage)
    scheme, _, rest = storage.partition("://")
    if rest.partition("/")[0].count("@") > 1:  # what stands behind the first would be taken for the host
        raise InputError(
            "there are two @ before the host",
            where=f"--storage {scheme}://***",
            remedy="an @ within a name or a password is written %40",
        )
    try:
        url = sqlalchemy.make_url(storage)
        (url.host or "").encode("idna")  # as the way to it will, a name that no server can have
    except (SQLAlchemyError, ValueError):  # whose message may quote it, with its password
        raise InputError(
            "this is no URL of a storage",
            where="--storage",
            remedy="--storage postgresql://USER@HOST/DATABASE",
        ) from None
    database = Database(None, secrets=_secrets(url), place=f"--storage {_shown(url)}")
    if url.drivername in POSTGRES:
        url = url.set(drivername="postgresql+psycopg")
    engine: dict[str, Any] = {"connect_args": {}}
    beats: dict[str, Any] = {}
    try:
        if url.get_backend_name() == "postgresql":
            engine["connect_args"]["connect_timeout"] = CONNECT
            if "options" not in url.query:  # heartbeats are compared with the time of another connection
                engine["connect_args"]["options"] = "-c timezone=utc"
            database.engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool, **engine)
            # where no lock is shared two processes might both repeat what they take for dead
            beats = {"heartbeat_interval": HEARTBEAT, "grace_period": GRACE}
        with database.alone("tables"), warnings.catch_warnings():  # several would make the tables at once
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            database.storage = RDBStorage(
                url.render_as_string(hide_password=False),
                engine_kwargs={"pool_pre_ping": True, **engine},
                **beats,
            )
    except (ImportError, SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        missing = isinstance(error, (ImportError, sqlalchemy.exc.NoSuchModuleError))
        if isinstance(error, ImportError) and url.get_driver_name() == "psycopg":
            raise InputError(
                "psycopg is not installed", where=database.place, remedy='pip install "bert-ft[postgres]"'
            ) from None
        raise InputError(
            f"this storage can't be opened: {database.clean(_cause(error))}",
            where=database.place,
            remedy="install its driver" if missing else "check that the server runs, and who may enter",
        ) from None
    return database


def in_file(file: Path) -> RDBStorage:
    """The storage of an SQLite file.

    SQLite takes a file system without locks for another process's lock, and waits LOCKED seconds a statement,
    which Optuna begins again ten times. So one is asked for before each statement.

    Raises:
        MachineError: the file system has no locks. Behind the error of a later statement it stands, too.
        InputError: as `file_address`.
    """
    import fcntl

    address = file_address(file)
    with disk(file.parent):  # without a name, and of nobody else
        probe = tempfile.TemporaryFile(dir=file.parent)  # noqa: SIM115

    def ask() -> None:
        until = time.monotonic() + LOCKLESS
        while True:
            try:
                fcntl.lockf(probe, fcntl.LOCK_EX | fcntl.LOCK_NB)
                fcntl.lockf(probe, fcntl.LOCK_UN)
                return
            except OSError as error:
                if time.monotonic() > until:
                    raise no_locks(file.parent, error) from None
            time.sleep(0.1)

    class Asking(sqlite3.Connection):
        def cursor(self, *given: Any) -> Any:
            ask()
            return super().cursor(*given)

        def commit(self) -> None:
            ask()
            super().commit()

    return RDBStorage(address, engine_kwargs={"connect_args": {"timeout": LOCKED, "factory": Asking}})


def _proxy(address: str) -> Database:
    """Optuna's gRPC proxy of a storage, which has no heartbeats of its own."""
    if (match := GRPC.fullmatch(address)) is None:
        raise InputError(
            "this is no address of a proxy", where="--storage", remedy="--storage grpc://HOST:PORT"
        )
    try:
        failures = (import_module("grpc").RpcError, ConnectionError)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            storage = optuna.storages.GrpcStorageProxy(host=match[1], port=int(match[2]))
        storage.wait_server_ready(timeout=CONNECT)
    except ImportError:
        raise InputError(
            "grpcio is not installed", where=f"--storage {address}", remedy="pip install grpcio protobuf"
        ) from None
    except failures:
        raise InputError(
            "no proxy answers",
            where=f"--storage {address}",
            remedy="optuna.storages.run_grpc_proxy_server(STORAGE, host=..., port=...) starts one",
        ) from None
    return Database(storage, place=f"--storage {address}")


def _shown(url: Any) -> str:
    """A URL without its password."""
    query = {key: "***" if SECRET.search(key) else value for key, value in url.query.items()}
    return str(url.set(query=query).render_as_string(hide_password=True))


def _secrets(url: Any) -> list[str]:
    """The passwords of a URL, in each way that they may be written; the longest first."""
    values = [str(url.password or "")]
    for key, value in url.query.items():
        if SECRET.search(key):
            values += [value] if isinstance(value, str) else value
    ways = {
        way
        for value in values
        if value
        for way in (value, quote(value), quote(value, safe=""), unquote(value))
    }
    return sorted(ways, key=len, reverse=True)


def _behind(error: BaseException) -> BaseException:
    """What an error comes from: the driver's own, where it has one."""
    while (behind := getattr(error, "orig", None) or error.__cause__) is not None:
        error = behind
    return error


def _cause(error: BaseException) -> str:
    """What is behind an error, in one line."""
    error = _behind(error)
    return " ".join(str(error).split()) or type(error).__name__


def file_address(file: Path) -> str:
    """The URL of an SQLite file. Raises InputError: its name would be read as an option of the connection."""
    from sqlalchemy import URL, make_url

    place = str(file.resolve())
    url = URL.create("sqlite", database=place).render_as_string(hide_password=False)
    if make_url(url).database != place:  # SQLAlchemy before 2.1 does not quote a "?"
        raise InputError(
            "a database can't lie in a folder of this name",
            where=str(file.parent),
            remedy="name another one: --output DIR",
        )
    return url
