"""`python -m bert_ft.jobs.child PARENT WORDS`: what `bert-ft WORDS` does, in a process that ends with its
parent, the process of this number: on a node of a cluster, where nobody else would end it."""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading
import time

PAUSE = 0.5  # seconds between two looks at the parent
GRACE = 30  # seconds to save the state


def _watch(parent: int) -> None:
    """Ends this process once the parent is gone, by SIGTERM first."""
    while os.getppid() == parent:
        time.sleep(PAUSE)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os._exit(1)


def main(parent: int, words: list[str]) -> None:
    """Runs the command; exits as it does."""
    # who started the parent may have kept these from it, and so from us
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    sys.argv = ["bert-ft", *words]
    runpy.run_module("bert_ft", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
