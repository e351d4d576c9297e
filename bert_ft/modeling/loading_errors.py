"""What goes wrong while a checkpoint is loaded, as one message."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from bert_ft.data import hub
from bert_ft.errors import InputError
from bert_ft.modeling import remote_code
from bert_ft.modeling.saving import quiet


@contextmanager
def loading_errors(where: str) -> Iterator[None]:
    """Turns what goes wrong while loading into one message; `transformers` prints nothing of its own
    meanwhile."""
    from pickle import UnpicklingError

    from huggingface_hub.errors import StrictDataclassError  # of odd types in a config
    from safetensors import SafetensorError
    from transformers import logging

    level = logging.get_verbosity()
    logging.set_verbosity(50)  # nothing but our own message
    try:
        with quiet(), nullcontext() if Path(where).is_dir() else hub.reached():
            yield
    except InputError:
        raise
    except ImportError as error:
        named = re.search(r"""(?:pip3? install|install|named|requires the) [`'"]*([\w-]+)""", str(error))
        if named is None:
            raise InputError(f"a package is missing: {_first_line(error)}", where=where) from None
        message, remedy = f"it needs the package '{named[1].lower()}'", f"pip install {named[1].lower()}"
        raise InputError(message, where=where, remedy=remedy) from None
    except UnpicklingError:
        message = "the weight file is corrupt, or contains more than weights"
        raise InputError(
            message, where=where, remedy="copy it again, or get it as model.safetensors"
        ) from None
    except (SafetensorError, EOFError) as error:
        message = f"the weight file is corrupt ({error})"
        raise InputError(message, where=where, remedy="download or copy it again") from None
    except (
        OSError,
        ValueError,
        KeyError,
        RuntimeError,
        TypeError,
        AttributeError,
        StrictDataclassError,
    ) as error:
        message, remedy = _explained(error, where)
        raise InputError(message, where=where, remedy=remedy) from None
    finally:
        logging.set_verbosity(level)


def _explained(error: Exception, where: str) -> tuple[str, str]:
    """(message, remedy) for what `transformers` and the hub's client raise."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, GatedRepoError):
            return "this checkpoint is gated", "request access on its page, then run `hf auth login`"
        if isinstance(cause, RepositoryNotFoundError):
            remedy = "check the id (org/name); a folder needs a path that exists"
            return "no such checkpoint on the hub, or no access to it", remedy
        if isinstance(cause, RevisionNotFoundError):
            return (
                "no such revision of this checkpoint",
                "run.revision is a branch, tag or commit; main by default",
            )
        cause = cause.__cause__ or cause.__context__
    if not Path(where).is_dir() and isinstance(error, OSError):
        message = (
            "the hub can't be reached, or the connection was lost, and this checkpoint is not in the cache; "
            "or it is not a checkpoint"
        )
        return message, "check the id, or the path: there is no such folder; try again when you are online"
    if "trust_remote_code" in str(error):
        message = "this checkpoint brings its own code, which runs only if you say so"
        return message, f"read it, then {remote_code.option(where)}; what a file says about this is ignored"
    if "torch.set_default_device" in str(error):
        message = "torch's default device is 'meta', which holds no numbers"
        return message, "torch.set_default_device(None), or leave `with torch.device(...)` before"
    remedy = "use an encoder that this version of transformers supports"
    return f"it can't be loaded: {_first_line(error)}", remedy


def _first_line(error: Exception) -> str:
    """What an exception says, in one line."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__).strip()
