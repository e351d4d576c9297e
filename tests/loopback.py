"""A hub of our own: model and data set repositories in the hub's API and file layout, on this machine alone."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import threading
from collections.abc import Callable, Iterator
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
        asked: (method, path) of every request so far. sent: its path, its headers but the authorization, and its body.
        tokens: token -> the names below which it may write; without any, nobody may.
        private: ids that only such a token sees.
        stored: sha256 -> content of the large files that have arrived.
        shas: folder -> the commit that was pushed last.
        before: called with the name of each writing request ("create", "upload", "commit"); it may raise
            `Refused`, or `BrokenOff`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.gated: set[str] = set()
        self.breaks: set[str] = set()
        self.asked: list[tuple[str, str]] = []
        self.sent: list[bytes] = []
        self.tokens: dict[str, set[str]] = {}
        self.private: set[str] = set()
        self.stored: dict[str, bytes] = {}
        self.shas: dict[Path, str] = {}
        self.before: Callable[[str], None] = lambda name: None
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
            if unquote(revision) in (folder.name.replace("--", "/"), self.sha(folder)):
                return folder
        return None

    def sha(self, folder: Path) -> str:
        return self.shas.get(folder) or commit(folder)


class Refused(Exception):
    """The hub answers with this status."""

    def __init__(self, status: int) -> None:
        self.status = status


class BrokenOff(Exception):
    """The connection ends without an answer."""


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

    def keep(self, given: bytes) -> None:
        named = [
            f"{name}: {value}" for name, value in self.headers.items() if name.lower() != "authorization"
        ]
        self.hub.sent.append(b"\n".join([self.path.encode(), *map(str.encode, named), given]))

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
        self.keep(given)
        if url.path == "/api/whoami-v2":
            known = self.headers.get("Authorization", "").removeprefix("Bearer ") in self.hub.tokens
            self.answer(200, json.dumps({"name": "me", "orgs": []}).encode()) if known else self.answer(401)
        elif found := API.fullmatch(url.path):
            self.api(*found.groups(), url.query, given)  # type: ignore[arg-type]
        elif found := FILE.fullmatch(url.path):
            self.file(*found.groups())
        else:
            self.answer(404)

    do_HEAD = do_GET

    def do_POST(self) -> None:
        if API.fullmatch(urlsplit(self.path).path):
            self.do_GET()
            return
        self.hub.asked.append((self.command, self.path))
        given = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.keep(given)
        try:
            self.write(urlsplit(self.path).path, given)
        except Refused as refused:
            code = {404: "RepoNotFound"}.get(refused.status, "")
            self.refuse(refused.status, code)
        except BrokenOff:
            self.close_connection = True

    do_PUT = do_POST

    def allowed(self, name: str) -> None:
        """Raises `Refused` where the request's token may not write below a name."""
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token not in self.hub.tokens:
            raise Refused(401)
        if name.split("/")[0] not in self.hub.tokens[token]:
            raise Refused(403)

    def write(self, path: str, given: bytes) -> None:
        """The hub's side of a push: https://huggingface.co/docs/hub/api and git-lfs's batch API."""
        if path == "/api/validate-yaml":
            self.answer(200, json.dumps({"errors": [], "warnings": []}).encode())
        elif path == "/api/repos/create":
            form = json.loads(given)
            name = f"{form['organization']}/{form['name']}"
            self.allowed(name)
            self.hub.before("create")
            folder = self.hub.folder / "models" / name / "main"
            if folder.is_dir():
                raise Refused(409)
            folder.mkdir(parents=True)
            if form.get("visibility") == "private":
                self.hub.private.add(name)
            self.answer(
                200, json.dumps({"url": f"http://127.0.0.1:{self.hub.port}/{name}", "name": name}).encode()
            )
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/main", path):
            self.allowed(found[1])
            modes = [
                {"path": file["path"], "uploadMode": "lfs" if file["size"] > 100_000 else "regular",
                 "shouldIgnore": False, "oid": None}
                for file in json.loads(given)["files"]
            ]  # fmt: skip
            self.answer(200, json.dumps({"files": modes}).encode())
        elif found := re.fullmatch(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
            self.allowed(found[1])
            objects = []
            for each in json.loads(given)["objects"]:
                href = f"http://127.0.0.1:{self.hub.port}/lfs/{each['oid']}"
                actions = {} if each["oid"] in self.hub.stored else {"actions": {"upload": {"href": href}}}
                objects.append({"oid": each["oid"], "size": each["size"], **actions})
            answer = {"transfer": "basic", "objects": objects}
            self.answer(200, json.dumps(answer).encode(), Content_Type="application/vnd.git-lfs+json")
        elif found := re.fullmatch(r"/lfs/(\w+)", path):
            self.hub.before("upload")
            assert hashlib.sha256(given).hexdigest() == found[1]
            self.hub.stored[found[1]] = given
            self.answer(200)
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", path):
            self.allowed(found[1])
            self.hub.before("commit")
            self.committed(found[1], [json.loads(line) for line in given.splitlines() if line])
        else:
            self.answer(404)

    def committed(self, name: str, lines: list[dict[str, Any]]) -> None:
        folder = self.hub.folder / "models" / name / "main"
        [header] = [line["value"] for line in lines if line["key"] == "header"]
        if header.get("parentCommit") not in (None, self.hub.sha(folder)):
            raise Refused(412)
        for line in lines:
            value, file = line["value"], folder / line["value"].get("path", "")
            if line["key"] == "deletedFile":
                file.unlink()
            elif line["key"] in ("file", "lfsFile"):
                file.parent.mkdir(parents=True, exist_ok=True)
                content = (
                    base64.b64decode(value["content"])
                    if line["key"] == "file"
                    else self.hub.stored[value["oid"]]
                )
                file.write_bytes(content)
        sha = hashlib.sha1(json.dumps([str(folder), self.hub.sha(folder), lines]).encode()).hexdigest()
        self.hub.shas[folder] = sha
        url = f"http://127.0.0.1:{self.hub.port}/{name}/commit/{sha}"
        answer = {"commitUrl": url, "commitOid": sha, "success": True, "hookOutput": ""}
        self.answer(200, json.dumps(answer).encode())

    def repository(self, kind: str, name: str, revision: str) -> Path | None:
        """The folder of a revision, or None after the refusal."""
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        unseen = name in self.hub.private and name.split("/")[0] not in self.hub.tokens.get(token, set())
        if token and token in self.hub.tokens and not (self.hub.folder / kind / name).is_dir():
            self.refuse(404, "RepoNotFound")
            return None
        if unseen or not (self.hub.folder / kind / name).is_dir():
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
            answer = {"_id": name, "id": name, "sha": self.hub.sha(folder), "siblings": files,
                      "private": name in self.hub.private, "tags": [],
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
        headers |= {"ETag": f'"{hashlib.sha256(body).hexdigest()}"', "X-Repo-Commit": self.hub.sha(folder)}
        if wanted := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            first, last = int(wanted[1]), int(wanted[2] or len(body) - 1)
            headers["Content-Range"] = f"bytes {first}-{last}/{len(body)}"
            body, status = body[first : last + 1], 206
        headers |= {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes"}
        if self.command == "GET" and file.name in self.hub.breaks:
            headers["Content-Length"] = str(len(body))
            body, self.close_connection = body[: len(body) // 2], True
        self.answer(status, body, **headers)
