"""torch and `transformers` are imported with the garbage collector at rest, and only then."""

from __future__ import annotations

import os
import subprocess
import sys

CODE = """
import gc, sys
from bert_ft import imports

class Watch:
    seen = []
    def find_spec(self, name, path=None, target=None):
        if name in ("torch", "transformers.modeling_utils", "transformers.generation.utils"):
            self.seen.append((name, gc.isenabled()))

sys.meta_path.insert(0, Watch())
if "off" in sys.argv:
    gc.disable()
imports.libraries()
assert gc.isenabled() == ("off" not in sys.argv)
if "off" in sys.argv:  # whose collector is off already imports them when it needs them
    assert not Watch.seen and not gc.get_freeze_count()
else:
    assert len({name for name, _ in Watch.seen}) == 3 and not any(on for _, on in Watch.seen), Watch.seen
    frozen = gc.get_freeze_count()
    assert frozen > 100_000
    imports.libraries()
    assert gc.get_freeze_count() == frozen
"""


def test_the_collector_rests() -> None:
    for more in ([], ["off"]):
        command = [sys.executable, "-W", "ignore", "-c", CODE, *more]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
        assert not done.returncode, done.stderr


def test_a_failed_import_leaves_it_on() -> None:
    code = (
        "import gc, sys\nfrom bert_ft import imports\nsys.modules['transformers'] = None\n"
        "try:\n    imports.libraries()\nexcept ImportError:\n    pass\nelse:\n    raise SystemExit(3)\nassert gc.isenabled()"
    )
    assert not subprocess.run([sys.executable, "-c", code], check=False).returncode


def test_two_threads_import_them_once() -> None:
    """One found half of `transformers`: "cannot import name 'AutoModel'"."""
    code = (
        "import sys, threading\nsys.setswitchinterval(1e-5)\nfrom bert_ft import imports\nfaults = []\n"
        "def go():\n    try:\n        imports.libraries()\n        from transformers import AutoModel\n"
        "    except BaseException as error:\n        faults.append(error)\n"
        "threads = [threading.Thread(target=go) for _ in range(3)]\n[t.start() for t in threads]; [t.join() for t in threads]\n"
        "sys.exit(str(faults) if faults else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False
    )
    assert not done.returncode, done.stderr
