"""A hub of our own: model and data set repositories in the hub's API and file layout, on this machine alone."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

API = re.compile(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/(revision|tree|paths-info)/([^/]+)(?:/(.*))?)?")
FILE = re.compile(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


class Hub:
    """Serves what lies in `folder`: <models or datasets>/<org>/<name>/<revision, "/" as "--">/<files>.

    Attributes:
        gated: ids whose files nobody may have.
        breaks: files whose download ends halfway, at every try.
        asked: (method, path) of every request so far.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.gated: set[str] = set()
        self.breaks: set[str] = set()
        self.asked: list[tuple[str, str]] = []
        self.server: ThreadingHTTPServer | None = None
        self.port = 0

    def add(self, kind: str, name: str, source: Path, revision: str = "main") -> None:
        """Makes a repository of a folder."""
        shutil.copytree(source, self.folder / kind / name / revision.replace("/", "--"))

    def start(self) -> None:
        """At the same port as before, if there was one."""
        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), type("Bound", (Handler,), {"hub": self}))
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        if self.server is not None:
            self.server.shutdown()
            self.server.server_close()
            self.server = None

    def environment(self, home: Path, **more: str) -> dict[str, str]:
        """What a process needs to take this for the hub, with a cache of its own."""
        return {
            "HF_ENDPOINT": f"http://127.0.0.1:{self.port}", "HF_HOME": str(home), "HF_HUB_OFFLINE": "0",
            "HF_DATASETS_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", **more,
        }  # fmt: skip

    def find(self, kind: str, name: str, revision: str) -> Path | None:
        """The folder of a repository's revision, which may be named by its commit."""
        repository = self.folder / kind / name
        for folder in repository.iterdir() if repository.is_dir() else ():
            if unquote(revision) in (folder.name.replace("--", "/"), commit(folder)):
                return folder
        return None


def commit(folder: Path) -> str:
    return hashlib.sha1(str(folder).encode()).hexdigest()


def entries(folder: Path, below: str, recursive: bool) -> Iterator[dict[str, Any]]:
    for path in sorted((folder / below).glob("**/*" if recursive else "*")):
        entry = {
            "path": path.relative_to(folder).as_posix(),
            "oid": commit(path),
            "size": 0,
            "type": "directory",
        }
        yield entry | ({"size": path.stat().st_size, "type": "file"} if path.is_file() else {})


class Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *arguments: Any) -> None:
        pass

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        headers = {"Content-Type": "application/json", "Content-Length": str(len(body))} | headers
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, status: int, code: str) -> None:
        self.answer(status, json.dumps({"error": code}).encode(), X_Error_Code=code, X_Error_Message=code)

    def do_GET(self) -> None:
        self.hub.asked.append((self.command, self.path))
        url = urlsplit(self.path)
        given = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if found := API.fullmatch(url.path):
            self.api(*found.groups(), url.query, given)  # type: ignore[arg-type]
        elif found := FILE.fullmatch(url.path):
            self.file(*found.groups())
        else:
            self.answer(404)

    do_HEAD = do_POST = do_GET

    def repository(self, kind: str, name: str, revision: str) -> Path | None:
        """The folder of a revision, or None after the refusal."""
        if not (self.hub.folder / kind / name).is_dir():
            self.refuse(401, "RepoNotFound")  # as the hub says it to somebody who is not logged in
            return None
        if (folder := self.hub.find(kind, name, revision)) is None:
            self.refuse(404, "RevisionNotFound")
        return folder

    def api(self, kind: str, name: str, verb: str | None, revision: str | None, below: str | None, query: str, given: bytes) -> None:  # fmt: skip
        folder = self.repository(kind, name, revision or "main")
        if folder is None:
            return
        below, options = unquote(below or ""), parse_qs(query)
        if verb == "tree":
            if not (folder / below).is_dir():
                self.refuse(404, "EntryNotFound")
                return
            answer: Any = list(entries(folder, below, options.get("recursive") == ["true"]))
        elif verb == "paths-info":
            form = json.loads(given) if given[:1] == b"{" else parse_qs(given.decode())
            answer = [entry for entry in entries(folder, "", True) if entry["path"] in form["paths"]]
        else:
            files = [{"rfilename": e["path"]} for e in entries(folder, "", True) if e["type"] == "file"]
            answer = {"_id": name, "id": name, "sha": commit(folder), "siblings": files, "private": False, "tags": [],
                      "gated": "manual" if name in self.hub.gated else False, "disabled": False}  # fmt: skip
        self.answer(200, json.dumps(answer).encode())

    def file(self, datasets: str | None, name: str, revision: str, path: str) -> None:
        folder = self.repository("datasets" if datasets else "models", name, revision)
        if folder is None:
            return
        if name in self.hub.gated:
            self.refuse(403, "GatedRepo")
            return
        file = folder / unquote(path)
        if not file.is_file():
            self.refuse(404, "EntryNotFound")
            return
        body, status, headers = file.read_bytes(), 200, {}
        headers |= {"ETag": f'"{hashlib.sha256(body).hexdigest()}"', "X-Repo-Commit": commit(folder)}
        if wanted := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            first, last = int(wanted[1]), int(wanted[2] or len(body) - 1)
            headers["Content-Range"] = f"bytes {first}-{last}/{len(body)}"
            body, status = body[first : last + 1], 206
        headers |= {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes"}
        if self.command == "GET" and file.name in self.hub.breaks:
            headers["Content-Length"] = str(len(body))
            body, self.close_connection = body[: len(body) // 2], True
        self.answer(status, body, **headers)
