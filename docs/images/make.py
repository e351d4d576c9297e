"""Makes the README's pictures from a real training (a few minutes on 2 cores; chromium takes the second one):

python docs/images/make.py      # after make assets; writes terminal.svg and report.png beside this file
"""

from __future__ import annotations

import contextlib
import io
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import rich.console
from rich._export_format import CONSOLE_SVG_FORMAT

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
COMMAND = [
    "train",
    "demo/film-reviews.toml",
    "--checkpoint",
    ".demo/all-MiniLM-L6-v2",
    "--set",
    "eval_every=20",
]
SCREEN = rich.console.Console(record=True, width=128, file=io.StringIO(), highlight=False)


def main() -> None:
    """Runs the command with every line recorded, then draws what it printed and what its report looks like."""
    shown = " ".join(["$ bert-ft", *COMMAND])
    rich.console.Console = lambda *_, **__: SCREEN  # type: ignore[assignment, misc] - all of bert-ft prints there
    from bert_ft import display
    from bert_ft.cli import main as bert_ft

    display.SECONDS = float(
        "inf"
    )  # on a terminal a bar stands for these lines, and goes when the training ends
    with tempfile.TemporaryDirectory() as folder:
        SCREEN.print(shown, style="bold green")
        with contextlib.suppress(SystemExit):  # a failure leaves no report to draw
            bert_ft([*COMMAND, "--output", f"{folder}/run"])
        own_fonts = re.sub(
            r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL
        )  # no font from elsewhere
        (HERE / "terminal.svg").write_text(
            SCREEN.export_svg(title="bert-ft", code_format=own_fonts, unique_id="bert-ft")
        )
        browser = shutil.which("chromium") or sys.exit("report.png needs chromium")
        subprocess.run([browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars",
                        "--disable-background-networking", "--window-size=1100,830",
                        f"--screenshot={HERE / 'report.png'}", f"file://{folder}/run/report.html"], check=True)  # fmt: skip


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
