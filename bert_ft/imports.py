"""torch and `transformers`, imported without the garbage collector looking on."""

from __future__ import annotations

import gc
import sys
import threading

_ONE = threading.Lock()
"""Two threads that import `transformers` at once find half of it."""


def libraries() -> None:
    """Imports what every run and every model needs of `transformers`, and torch with it.

    Half a million objects are made that all stay. The collector would look through them over and over, a
    fifth of the time that it takes; so it rests, and leaves what is alive by then alone afterwards too: in a
    notebook also objects from before, which end with their last name then and not as parts of a circle.
    Nothing happens where the libraries are imported already, or where somebody has switched it off.
    """
    with _ONE:
        if not gc.isenabled() or "transformers.modeling_utils" in sys.modules:
            return
        gc.collect()  # what is garbage by now would stay with them
        gc.disable()
        try:
            from transformers import AutoModel, AutoTokenizer, GenerationMixin, PreTrainedModel  # noqa: F401
        finally:
            gc.freeze()
            gc.enable()
