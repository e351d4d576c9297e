"""A server on this machine alone, for one model."""

from __future__ import annotations

import errno
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bert_ft import run as runs
from bert_ft.errors import InputError
from bert_ft.modeling import remote_code
from bert_ft.tools.app import examples
from bert_ft.tools.app.guard import Guard
from bert_ft.tools.app.phrases import phrase, preferred

if TYPE_CHECKING:
    from bert_ft.tools.app.page import Subject

LOCAL = "127.0.0.1"
QUIET = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1", "GRADIO_SSR_MODE": "False"}
"""What Gradio reads as it is imported: otherwise it asks for its newest version, and reports."""
GRACE = 1  # seconds that open pages have once the server is to end: each holds a connection


def serve(
    name: str,
    *,
    port: int = 0,
    language: str | None = None,
    trust_remote_code: remote_code.Names = None,
    started: Callable[[str], None] = lambda address: None,
    tell: Callable[[str], None] = lambda line: None,
) -> None:
    """Serves a page to try a model in, on 127.0.0.1, until it is interrupted.

    Args:
        name: a run, a model folder or a hub id.
        port: 0 for a free one.
        language: "en" or "zh"; that of the browser by default.
        started: takes the address once the page answers there.
        tell: takes what a person should know of the model.
    Raises:
        InputError: no such model, a port that is taken, or Gradio is not installed.
    """
    with (
        _interruptible(),
        tempfile.TemporaryDirectory(prefix="bert-ft-app-") as uploads,
        closing(listen(port)) as listening,
    ):
        os.environ |= QUIET | {"GRADIO_TEMP_DIR": uploads}
        from bert_ft.tools.app import page

        subject = load(name, trust_remote_code)
        for line in [*([phrase("en", "unfinished")] if subject.unfinished else []), *subject.notes]:
            tell(line)
        port = listening.getsockname()[1]
        application = _application(language)
        page.mount(application, subject, port)
        _run(Guard(application, port), listening, lambda: started(f"http://{LOCAL}:{port}/"))


@contextmanager
def _interruptible() -> Iterator[None]:
    """Lets a process that is told to end, or whose terminal is closed, end as after Ctrl-C: otherwise it
    leaves the uploads behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ending = [number for name in ("SIGTERM", "SIGHUP") if (number := getattr(signal, name, None))]
    before = {number: signal.signal(number, signal.default_int_handler) for number in ending}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def load(name: str, trust_remote_code: remote_code.Names = None) -> Subject:
    """A model, and what the page says of it; arguments and errors as of `serve`."""
    from bert_ft.tools.app.page import Subject, roles

    loaded = runs.load(name, trust_remote_code=trust_remote_code)
    if not isinstance(loaded, runs.Run):
        return Subject(loaded, Path(name).name, "", False, loaded.notes, "", [])
    model = loaded.model
    of_set, some = examples.of_run(loaded, roles(model))
    unfinished = loaded.dir.state == "unfinished"
    place = loaded.path.resolve().name
    return Subject(model, place, loaded.task.title, unfinished, model.notes, of_set, some)


def listen(port: int) -> socket.socket:
    """A socket at a port of this machine, 0 for a free one. Raises InputError: it is taken, or is none."""
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((LOCAL, port))
        listening.listen()
    except OSError as error:
        listening.close()
        reasons = {errno.EADDRINUSE: "is taken", errno.EACCES: "is not for this user"}
        if error.errno not in reasons:
            raise
        remedy = "name another one, or leave --port out for a free one"
        raise InputError(f"port {port} {reasons[error.errno]}", where="--port", remedy=remedy) from None
    return listening


def _application(language: str | None) -> Any:
    """A FastAPI application whose first page leads to that of the browser's language, or of the given one."""
    from fastapi import FastAPI, Request
    from fastapi.responses import RedirectResponse

    application = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    def first(request: Request) -> RedirectResponse:
        chosen = language or preferred(request.headers.get("accept-language", ""))
        return RedirectResponse(f"/{chosen}/", headers={"vary": "accept-language"})

    first.__annotations__ = {"request": Request}  # FastAPI can't resolve a name that this function imports
    application.get("/")(first)
    application.get("/favicon.ico", status_code=204)(lambda: None)  # a browser asks for it
    return application


def _run(application: Any, listening: socket.socket, started: Callable[[], None]) -> None:
    """Answers until Ctrl-C, or until the process is told to end."""
    import uvicorn

    config = uvicorn.Config(
        application,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=GRACE,
    )
    started()  # who asks from now on is answered as soon as the loop runs
    with suppress(KeyboardInterrupt):  # uvicorn raises it again once it has ended
        uvicorn.Server(config).run(sockets=[listening])
