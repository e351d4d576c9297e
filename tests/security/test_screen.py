"""Every command in a world of hostile strings, on a terminal: an emulator shows what the terminal would have done, and a hook
what the process did beside it. Nothing but the command's own folder is written, nothing is reached, nothing is started."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from tests.loopback import Hub
from tests.security.hostile import ALL, LABELS, MARKED, NAME, QUICK, Shown, World, on_a_terminal

pyte = pytest.importorskip("pyte")

OURS = {
    "draw",
    "linefeed",
    "carriage_return",
    "tab",
    "select_graphic_rendition",
    "cursor_up",
    "erase_in_line",
}
"""What lines, colours and bars are made of."""
COLOURS = {0, 1, 2, 3, 4, 22, 23, 24, *range(30, 40), 90, 91, 92, 93, 94, 95, 96, 97, 38, 39}
HIDDEN = re.compile("[\u200e\u200f\u2028-\u202e\u2066-\u2069\x7f-\x9f]")
PROGRAMS = {"fc-list", "uname"}  # matplotlib asks for fonts, Python for the processor
OF_MACHINE = ("/dev/null", "/dev/shm", "/proc/self")


class Screen(pyte.Screen):
    """A screen that writes down every order that it got."""

    def __init__(self) -> None:
        self.orders: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self.depth = 0  # an order may be carried out by others
        super().__init__(120, 50)

    def __getattribute__(self, name: str) -> Any:
        value = super().__getattribute__(name)
        if name in pyte.Stream.events:

            def told(*given: Any, **more: Any) -> Any:
                if not self.depth:
                    self.orders.append((name, given, more))
                self.depth += 1
                try:
                    return value(*given, **more)
                finally:
                    self.depth -= 1

            return told
        return value


def orders(raw: bytes) -> list[str]:
    """The orders that a terminal got and that are none of ours."""
    screen = Screen()
    screen.orders.clear()
    pyte.ByteStream(screen).feed(raw)
    found = []
    for name, given, more in screen.orders:
        if name in ("set_mode", "reset_mode"):  # a bar hides the cursor
            fine = given == (25,) and more == {"private": True}
        elif name == "select_graphic_rendition":
            fine = {*given} <= COLOURS or given[:2] == (38, 5)
        elif name == "cursor_up":  # of a bar, or of the table of a search
            fine = given == (1,)
        else:
            fine = name in OURS
        if not fine:
            found.append(f"{name} {given} {more}")
    if screen.title or screen.icon_name:
        found.append(f"title {screen.title}")
    text = raw.decode("utf-8", errors="replace")
    found += [
        f"an order of the system in {text[m.start() : m.end() + 20]!r}"
        for m in re.finditer("\x1b[^\\[]|[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x80-\x9f]", text)
    ]
    found += [f"{match[0]!r} on the screen" for line in screen.display for match in HIDDEN.finditer(line)]
    found += [f"{match[0]!r}" for match in HIDDEN.finditer(text)]
    return found


def outside(shown: Shown, folder: Path) -> list[str]:
    """What a command wrote outside of its folder and of the caches that it was given."""
    own = folder.parent / f"{folder.name}-own"
    places = [os.path.realpath(place) for place in (folder, own)]
    return [
        path for path in shown.wrote
        if not path.startswith(OF_MACHINE) and not any(f"{os.path.realpath(path)}/".startswith(f"{place}/") for place in places)
    ]  # fmt: skip


def judge(shown: Shown, folder: Path, code: int | None = 0) -> None:
    """Holds what a command did against all that it must not do."""
    assert "Traceback" not in shown.text, shown.text
    assert code is None or shown.code == code, shown.text
    assert shown.text.strip()
    assert not orders(shown.raw), orders(shown.raw)
    assert not outside(shown, folder), outside(shown, folder)
    assert not [where for where in shown.reached if "127.0.0.1" not in where], shown.reached
    programs = [program for program in shown.started if not any(f"'{name}'" in program for name in PROGRAMS)]
    assert not programs, programs


COMMANDS: dict[str, tuple[str, ...]] = {
    "compare": ("compare", "RUN:classification", "RUN:second", "--show-flips", "3"),
    "predict": ("predict", "RUN:classification", "ROWS:classification"),
    "predict csv": ("predict", "RUN:classification", "ROWS:classification", "--to", "csv", "--escape-formulas"),
    "predict to a file": ("predict", "RUN:classification", "ROWS:classification", "-o", f"answers{NAME}.csv"),
    "predict tagged": ("predict", "RUN:ner", "ROWS:classification"),
    "predict answers": ("predict", "RUN:qa", "ROWS:qa", "--to", "tsv"),
    "evaluate": ("evaluate", "RUN:classification"),
    "evaluate other rows": ("evaluate", "RUN:classification", "--data", "ROWS:classification"),
    "evaluate entities": ("evaluate", "RUN:ner"),
    "check": ("check", "classification", "--train", "ROWS:classification", "--validation", "ROWS:classification"),
    "check with tokens": ("check", "ner", "--train", "ROWS:ner", "--validation", "ROWS:ner", "-c", f"model{NAME}"),
    "check answers": ("check", "qa", "--train", "ROWS:qa", "--validation", "ROWS:qa"),
    "check json": ("check", "classification", "--train", "ROWS:classification", "--validation", "ROWS:classification", "--json"),
    "runs": ("runs", "."),
    "runs json": ("runs", ".", "--json"),
    "report": ("report", "RUN:classification"),
    "report of two": ("report", "RUN:classification", "RUN:second", "-o", f"both{NAME}.html"),
    "tasks": ("tasks", "show", f"task{MARKED}.toml"),
    "task": ("train", f"task{MARKED}.toml", "-c", f"model{NAME}", "-o", f"again{NAME}", *QUICK),
    "embed": ("embed", f"model{NAME}", "ROWS:classification", "-o", f"vectors{NAME}.parquet"),
    "search": ("search", "classification", "-c", f"model{NAME}", "--train", "ROWS:classification", "--validation",
               "ROWS:classification", "-o", f"search{NAME}".replace("\x1b(0", ""), "--trials", "2", "--space", "learning_rate=1e-5,1e-4",
               "--set", "max_steps=2", "--set", "max_length=48"),
    "curve": ("curve", "classification", "--shares", "9", "18", "--seeds", "2", "-c", f"model{NAME}", "--train", "ROWS:classification",
              "--validation", "ROWS:classification", "-o", f"curve{NAME}", "--max-steps", "2"),
    "cache": ("cache",),
    "export": ("export", "RUN:classification"),
}  # fmt: skip
FAULTS: dict[str, tuple[str, ...]] = {
    "no file": ("predict", "RUN:classification", f"none{ALL}.csv"),
    "no column": ("check", "classification", "--train", "ROWS:classification", "--text", ALL),
    "no checkpoint": ("train", "classification", "-c", f"./none{ALL}", "--train", "ROWS:classification", "--validation", "10%"),
    "no hub id": ("train", "classification", "-c", f"org/{NAME}", "--train", "ROWS:classification", "--validation", "10%"),
    "a task of this name": ("tasks", "show", f"none{NAME}.toml"),
    "no task": ("train", f"none{ALL}"),
    "no key": ("train", f"task{MARKED}.toml", "-c", f"model{NAME}", "--set", f"{ALL}=1"),
    "no value": ("train", f"task{MARKED}.toml", "-c", f"model{NAME}", "--set", f"learning_rate={ALL}"),
    "no option": ("train", f"--{ALL}"),
    "no command": (ALL,),
    "no run": ("report", f"none{ALL}"),
    "no such rows": ("predict", "RUN:ner", "ROWS:qa"),
    "no metric": ("compare", "RUN:classification", "RUN:second", "--metric", ALL),
    "no cluster": ("curve", f"task{MARKED}.toml", "-c", f"model{NAME}", "--on", f"ray://{NAME}:1"),
    "no storage": ("search", f"task{MARKED}.toml", "-c", f"model{NAME}", "--storage", f"postgresql://{ALL}"),
    "no name": ("push", "RUN:classification", NAME),
    "no language": ("app", "RUN:classification", "--language", ALL),
    "another run": ("train", f"task{MARKED}.toml", "-c", f"model{NAME}", "-o", f"classification{NAME}"),
    "no space": ("search", f"task{MARKED}.toml", "-c", f"model{NAME}", "--space", f"{ALL}=1"),
}  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_no_command_obeys_what_it_shows(world: World, name: str) -> None:
    shown = on_a_terminal(world.words(*COMMANDS[name]), world.folder)
    judge(shown, world.folder)


@pytest.mark.parametrize("name", FAULTS)
def test_no_message_obeys_what_it_quotes(world: World, name: str) -> None:
    shown = on_a_terminal(world.words(*FAULTS[name]), world.folder)
    judge(shown, world.folder, code=2)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["classification", "ner", "qa", "second", "task", "folds"])
def test_no_training_obeys_its_rows(world: World, kind: str) -> None:
    world.run(kind)
    judge(world.made[kind], world.folder)
    assert "\\x1b]0;owned" in world.made[kind].text, "what stands in the data is shown, escaped"


@pytest.mark.slow
def test_a_data_set_and_a_checkpoint_of_a_hub(world: World, tmp_path: Path) -> None:
    """Both are a stranger's, each string of them, and come over the network; what is asked for is in the hub alone."""
    repository = tmp_path / "rows"
    (repository / "data").mkdir(parents=True)
    rows = [{"text": f"a film {i} {ALL}", "label": LABELS[i % 3], f"note{ALL}": ALL} for i in range(18)]
    for part in ("train", "validation"):
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (repository / "data" / f"{part}.jsonl").write_text(lines)
    (repository / "README.md").write_text(
        f"---\nlicense: {json.dumps(ALL)}\ntags: [{json.dumps(ALL)}]\n---\n{ALL}"
    )
    hub = Hub(tmp_path / "hub")
    hub.add("datasets", "stranger/rows", repository)
    hub.add("models", "stranger/model", world.folder / world.checkpoint)
    task = world.folder / "hub.toml"
    task.write_text(
        f'title = {json.dumps(ALL)}\nfamily = "classification"\n[data]\npath = "stranger/rows"\ntrain = "train"\n'
        'evaluate = "validation"\n'.replace("\x7f", "\\u007f")
    )
    hub.start()
    try:
        for argv in (
            ["check", "hub.toml"],
            ["train", "hub.toml", "-c", "stranger/model", "-o", f"of a hub{NAME}", *QUICK],
        ):
            shown = on_a_terminal(
                argv, world.folder, **hub.environment(tmp_path / "home", HOME=str(tmp_path / "home"))
            )
            shown.wrote = [path for path in shown.wrote if not path.startswith(str(tmp_path / "home"))]
            judge(shown, world.folder)
            assert "\\x1b]0;owned" in shown.text, "what stands in the data is shown, escaped"
    finally:
        hub.stop()
    assert {path.split("/")[-1].split("?")[0] for _, path in hub.asked} >= {
        "train.jsonl",
        "model.safetensors",
    }


@pytest.mark.parametrize("raw", [
    b"\x1b]0;t\x07", b"\x1b]52;c;x\x07", b"\x1b[7A", b"\x1b[2J", b"\x1b[5;45m", b"\x07", b"\x1bc", "\x9b2J".encode(), "\u202ea".encode(),
    b"\x1b[6n", b"\x1b(0", b"\x0e", b"\x08",
])  # fmt: skip
def test_the_judge_sees_orders(raw: bytes) -> None:
    assert orders(b"a line\r\n" + raw)
    assert not orders(b"a \x1b[1mline\x1b[0m\r\n\x1b[?25l\x1b[2K\x1b[1A\x1b[?25h")


def test_the_watcher_sees_what_a_command_does(world: World) -> None:
    """Files that are written, and addresses that are reached for."""
    shown = on_a_terminal(["predict", "nobody/nothing", world.files["classification"]], world.folder, HF_HUB_OFFLINE="0", HF_DATASETS_OFFLINE="0",
                          HF_ENDPOINT="http://127.0.0.1:9")  # fmt: skip
    assert shown.code == 2 and any("127.0.0.1" in where for where in shown.reached), shown
    assert json.dumps(shown.wrote) != "[]"
