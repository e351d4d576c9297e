"""A world that a stranger made, of harmless stand-ins: rows, labels, names of files and folders, a task and a checkpoint,
each of which would give orders to whatever does not escape it; and commands run in it, on a terminal and watched.

What would obey: a terminal (its title, clipboard, cursor, colours, bell), a browser (scripts, handlers, links, addresses to
load), Markdown, a template, a spreadsheet. What an order does is to leave a mark: a title, a call of `owned(...)`.
"""

from __future__ import annotations

import csv
import fcntl
import json
import os
import pty
import shutil
import struct
import subprocess
import sys
import termios
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bert_ft

# Title and icon, clipboard, a string for the device, questions to it; cursor, erasing, blinking on magenta, another
# character set, a reset; the same orders in one byte; a bell; the order of reading.
ORDERS = (
    "\x1b]0;owned\x07", "\x1b]52;c;b3duZWQ=\x07", "\x1bPowned\x1b\\", "\x1b[6n\x1b[c\x1b[5n", "\x1b[7A\x1b[2J\x1b[H", "\x1b[5;45m",
    "\x1b(0\x0e", "\x1bc", "\x9d0;owned\x9c", "\x9b2J", "\x07\x08\x7f", "\u202egnp.exe\u2066",
)  # fmt: skip
TERMINAL = "".join(ORDERS)
BEACON = "http://127.0.0.1:9/owned"
HTML = (
    f"\"'><script>owned('script')</script><img src=x onerror=owned('img')><svg onload=owned('svg')></svg></title></style></td>"
    f'<iframe src="javascript:owned(1)"></iframe><a href="javascript:owned(2)">a</a><link rel=stylesheet href="{BEACON}.css">'
    f'<img src="{BEACON}.png"><meta http-equiv=refresh content="0;url={BEACON}"><base href="{BEACON}">'
)
MARKDOWN = f"[a](javascript:owned(3)) ![i]({BEACON}.png) | `c` <!-- {{{{ 7 * 7 }}}} {{% raw %}} ${{owned(4)}}"
FORMULA = "=HYPERLINK(\"http://127.0.0.1:9\")+cmd|' /C calc'!A0"
ALL = f"{TERMINAL}{HTML}{MARKDOWN}"
NAME = f"{TERMINAL}<img src=x onerror=owned('name')>".replace("/", "")  # of a file
MARKED = "<img src=x onerror=owned('task')>\"'&{{7*7}}"
LABELS = [f"good{TERMINAL}", f"bad{HTML}", FORMULA]
WORDS = ["a", "warm", "film", f"in{TERMINAL}", f"New{HTML}", "York"]
TAGS = ["O", "O", "O", "O", f"B-LOC{TERMINAL}{HTML}", f"I-LOC{TERMINAL}{HTML}"]
QUICK = ["--max-steps", "2", "--max-length", "48"]

WATCHER = """
import os, sys

log = os.open(os.environ["WATCHED"], os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
WRITE = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGED = {"os.rename": (0, 1), "os.mkdir": (0,), "os.remove": (0,), "os.rmdir": (0,), "os.symlink": (1,), "os.link": (1,),
           "os.truncate": (0,), "os.chmod": (0,), "os.chown": (0,), "os.utime": (0,), "sqlite3.connect": (0,)}
REACHED = {"socket.connect": 1, "socket.sendto": 1, "socket.getaddrinfo": 0, "socket.gethostbyname": 0, "socket.bind": 1}
STARTED = ("subprocess.Popen", "os.exec", "os.posix_spawn", "os.system", "webbrowser.open")

def hook(event, args):
    if event == "open":
        if isinstance(args[0], (str, bytes)) and args[2] & WRITE:
            note("wrote", os.path.join(os.getcwd(), os.fsdecode(args[0])))
    elif event in CHANGED:
        for at in CHANGED[event]:
            if isinstance(args[at], (str, bytes, os.PathLike)):
                note("wrote", os.path.join(os.getcwd(), os.fsdecode(args[at])))
    elif event in REACHED:
        note("reached", repr(args[REACHED[event]]))
    elif event in STARTED:
        note("started", repr(args))

def note(kind, what):
    os.write(log, f"{kind} {what!r}\\n".encode())

sys.addaudithook(hook)
"""
"""`sitecustomize.py`: writes down each file that a process opens for writing, makes, renames or deletes, each address that
it reaches for, and each program that it starts; its children have it, too."""


@dataclass
class Shown:
    """What a command left: its exit code, the bytes that the terminal got, and what it did meanwhile."""

    code: int
    raw: bytes
    wrote: list[str] = field(default_factory=list)
    reached: list[str] = field(default_factory=list)
    started: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return self.raw.decode("utf-8", errors="replace")


def on_a_terminal(argv: list[str], folder: Path, watch: bool = True, **environment: str) -> Shown:
    """Runs `bert-ft` in `folder` on a terminal of its own, 120 columns wide."""
    import ast

    own = folder.parent / f"{folder.name}-own"
    for name in ("hook", "home", "tmp", "cache"):
        (own / name).mkdir(parents=True, exist_ok=True)
    (own / "hook" / "sitecustomize.py").write_text(WATCHER)
    (own / "watched").write_text("")
    root = str(Path(bert_ft.__file__).parents[1])
    known = {
        **os.environ, "TERM": "xterm-256color", "PYTHONPATH": f"{own / 'hook'}:{root}" if watch else root, "COLUMNS": "120",
        "WATCHED": str(own / "watched"), "HOME": str(own / "home"), "TMPDIR": str(own / "tmp"), "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(own / "cache"), "BERT_FT_CACHE": str(own / "cache"), "XDG_CACHE_HOME": str(own / "cache"),
        "TORCHINDUCTOR_CACHE_DIR": str(own / "cache"),
        **environment,
    }  # fmt: skip
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 120, 0, 0))
    process = subprocess.Popen([sys.executable, "-P", "-m", "bert_ft", *argv], cwd=folder, env=known,
                               stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, close_fds=True)  # fmt: skip
    os.close(theirs)
    parts = []
    while True:
        try:
            if not (part := os.read(ours, 65536)):
                break
        except OSError:  # nobody has the other end any more
            break
        parts.append(part)
    os.close(ours)
    shown = Shown(process.wait(120), b"".join(parts))
    for line in (own / "watched").read_text().splitlines():
        kind, _, what = line.partition(" ")
        getattr(shown, kind).append(ast.literal_eval(what))
    return shown


class World:
    """A folder of a stranger's, with rows of all families, a checkpoint and a task; its runs are made when they are asked
    for.

    Attributes:
        folder: where commands are run. files: family -> the name of its rows. checkpoint, task: their names.
    """

    def __init__(self, folder: Path, checkpoint: Path) -> None:
        self.folder = folder / f"world{NAME[:40]}".replace("\x07", "")
        self.folder.mkdir(parents=True)
        self.checkpoint = f"model{NAME}"
        self._checkpoint(checkpoint)
        self.files = {
            "classification": f"rows{NAME}.csv",
            "ner": f"words{NAME}.jsonl",
            "qa": f"questions{NAME}.jsonl",
        }
        rows = [
            [f"a {'warm' if i % 3 else 'dull'} film {i} {ALL} {FORMULA}", LABELS[i % 3], FORMULA]
            for i in range(18)
        ]
        with (self.folder / self.files["classification"]).open("w", newline="") as stream:
            csv.writer(stream).writerows([["text", "label", f"note{ALL}"], *rows])
        self._lines("ner", [{"tokens": WORDS, "tags": TAGS, "note": ALL}] * 12)
        context = f"{ALL} it was a warm film"
        self._lines("qa", [
            {"id": f"{i}{ALL}", "question": f"what film? {ALL}", "context": context,
             "answers": {"text": ["warm"], "answer_start": [context.index("warm")]}} for i in range(12)
        ])  # fmt: skip
        self.task = f"task{MARKED}.toml"  # a name with control characters is refused
        quoted = {
            key: json.dumps(value)
            for key, value in {"title": f"title {ALL}", "rows": self.files["classification"]}.items()
        }
        (self.folder / self.task).write_text(
            f'title = {quoted["title"]}\nfamily = "classification"\n[data]\ntrain = {quoted["rows"]}\nevaluate = {quoted["rows"]}\n'
            .replace("\x7f", "\\u007f")
        )  # fmt: skip
        self.made: dict[str, Shown] = {}

    def _checkpoint(self, source: Path) -> None:
        place = Path(shutil.copytree(source, self.folder / self.checkpoint))
        config = json.loads((place / "config.json").read_text())
        config |= {"_name_or_path": ALL, "architectures": [ALL], "author": ALL, "id2label": {"0": ALL, "1": FORMULA},
                   "label2id": {ALL: 0, FORMULA: 1}, "task_specific_params": {ALL: {ALL: 1}}}  # fmt: skip
        (place / "config.json").write_text(json.dumps(config))
        tokenizer = json.loads((place / "tokenizer_config.json").read_text())
        (place / "tokenizer_config.json").write_text(
            json.dumps(tokenizer | {"name_or_path": ALL, "chat_template": ALL})
        )
        from safetensors.torch import load_file, save_file

        weights = load_file(place / "model.safetensors")
        save_file(
            weights | {f"more.{ALL}": weights["pooler.dense.bias"].clone()},
            place / "model.safetensors",
            {"format": "pt", ALL: ALL},
        )
        (place / "README.md").write_text(f"---\nlicense: {json.dumps(ALL)}\n---\n{ALL}")
        (place / f"more{NAME}.json").write_text(ALL)

    def _lines(self, family: str, rows: list[dict[str, Any]]) -> None:
        (self.folder / self.files[family]).write_text("".join(json.dumps(row) + "\n" for row in rows))

    def given(self, family: str) -> list[str]:
        """The words that name a family's rows, twice."""
        return [family, "--train", self.files[family], "--validation", self.files[family]]

    def run(self, kind: str) -> str:
        """The name of a finished run: of a family, of a second one of classification, or of folds."""
        if kind not in self.made:
            name = f"{kind}{NAME}"
            if kind == "task":
                argv = ["train", self.task]
            else:
                argv = [
                    "train",
                    *self.given({"second": "classification", "folds": "classification"}.get(kind, kind)),
                ]
            argv += ["-c", self.checkpoint, "-o", name, *QUICK]
            argv += {"second": ["--seed", "7"], "folds": ["--folds", "3"]}.get(kind, [])
            if kind == "folds":
                del argv[argv.index("--validation") : argv.index("--validation") + 2]
            self.made[kind] = on_a_terminal(argv, self.folder)
            assert self.made[kind].code == 0, self.made[kind].text
        return f"{kind}{NAME}"

    def words(self, *argv: str) -> list[str]:
        """The words of a command, `RUN:KIND` being the name of a run and `ROWS:FAMILY` that of rows."""
        for_run = [self.run(word[4:]) if word.startswith("RUN:") else word for word in argv]
        names = {f"ROWS:{family}": name for family, name in self.files.items()}
        return [names.get(word, word) for word in for_run]
