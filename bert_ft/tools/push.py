"""A run's model on the hub: one commit, of what answers need and no more.

A commit is whole or not there: one that breaks off leaves the repository as it was, and large files that had
arrived are not sent again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bert_ft import files
from bert_ft.errors import InputError
from bert_ft.rundir.folder import FOLDERS, RunDir

MORE = ("predictions", "report")
"""What else of a run can be pushed, where it is asked for: both show rows of the data."""
PLACES = ("PATH_OR_ID_OF_THIS_MODEL", "PATH_OF_THIS_MODEL")
TOKEN = re.compile(rb"\bhf_[A-Za-z0-9]{30,}")
LONGEST = 5_000_000  # bytes of a file that is looked through for a token


@dataclass(frozen=True)
class Pushed:
    """What was pushed, or would be.

    Attributes:
        repo: ORG/NAME. private: whether others can see it.
        files: path in the repository -> bytes. removed: files of an earlier push that are no longer there.
        commit: the commit's sha; None for a dry run. url: of the commit.
        changed: whether there was anything to commit.
    """

    repo: str
    private: bool
    files: dict[str, int]
    removed: tuple[str, ...] = ()
    commit: str | None = None
    url: str | None = None
    changed: bool = True


def push(
    run: str | Path,
    repo: str,
    *,
    public: bool = False,
    more: Sequence[str] = (),
    message: str | None = None,
    dry_run: bool = False,
) -> Pushed:
    """Pushes a run's model with its card to the hub and returns what was pushed; the run records the commit
    in `pushed.jsonl`.

    The repository is created where there is none. Of one that is there, files of a model that this one does
    not have are removed; others stay.

    Args:
        run: a finished run that kept its model.
        repo: ORG/NAME; the token is that of `hf auth login`, or of HF_TOKEN.
        public: whether everybody may see a repository that is created; needed for one that everybody sees.
        more: what else is pushed, of "predictions" (with labels) and "report" (which quotes texts).
        message: of the commit.
        dry_run: reads the run and the hub, and changes nothing.
    Raises:
        InputError: no such run, nothing to push, a file that holds a token of the hub, no access to the
            repository, or one that somebody else changed meanwhile.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    folder = RunDir(run)
    operations = [CommitOperationAdd(path, source) for path, source in _contents(folder, repo, more).items()]
    sizes = {operation.path_in_repo: operation.upload_info.size for operation in operations}
    with _refusals(repo):
        api = HfApi(token=_token())
        there = _repository(api, repo)
        if there is not None and not there.private and not public:
            raise InputError(
                "everybody can see this repository",
                where=repo,
                remedy="--public pushes to it; or name another one, which will be private",
            )
        private = there.private if there is not None else not public
        remote = [] if there is None else [file.rfilename for file in there.siblings or []]
        removed = tuple(name for name in remote if name not in sizes and FOLDERS["model"].fullmatch(name))
        if dry_run:
            return Pushed(repo, private, sizes, removed)
        if there is None:
            api.create_repo(repo, private=private)
        before = there.sha if there is not None else None
        done = api.create_commit(
            repo,
            [*operations, *(CommitOperationDelete(name) for name in removed)],
            commit_message=message or f"{folder.task().name}, by bert-ft",
            parent_commit=before,
        )
    result = Pushed(repo, private, sizes, removed, done.oid, done.commit_url, done.oid != before)
    _record(folder, result)
    return result


def _contents(folder: RunDir, repo: str, more: Sequence[str]) -> dict[str, Path | bytes]:
    """Path in the repository -> what is pushed there."""
    if folder.state != "finished" or not (folder.model / "config.json").is_file():
        what = "keeps no model" if folder.state == "finished" else "is no finished run"
        raise InputError(f"this {what}", where=str(folder.path), remedy="name a finished run with a model/")
    for name in more:
        if name not in MORE:
            raise InputError(f"there is no '{name}' to push", where="--with", remedy=" or ".join(MORE))
    result: dict[str, Path | bytes] = {
        path.name: path
        for path in sorted(folder.model.iterdir())
        if path.is_file() and FOLDERS["model"].fullmatch(path.name) and not path.name.startswith(".")
    }
    if (card := folder.model / "README.md").is_file():
        text = card.read_text(encoding="utf-8")
        for place in PLACES:
            text = text.replace(place, repo)
        result["README.md"] = text.encode()
    if "predictions" in more:
        result |= {f"predictions/{path.name}": path for path in sorted(folder.predictions.glob("*.jsonl"))}
    if "report" in more and folder.report_html.is_file():
        result["report.html"] = folder.report_html
    for name, source in result.items():
        if isinstance(source, bytes) or source.stat().st_size <= LONGEST:
            content = source if isinstance(source, bytes) else source.read_bytes()
            if TOKEN.search(content):
                raise InputError("a token of the hub stands in this file", where=name, remedy="take it out")
    return result


def _token() -> str:
    from huggingface_hub import get_token

    token = get_token()
    if token is None:
        raise InputError(
            "there is no token for the hub",
            remedy="`hf auth login`, or set HF_TOKEN to a token that may write",
        )
    return token


def _repository(api: Any, repo: str) -> Any:
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        return api.model_info(repo)
    except RepositoryNotFoundError as error:
        if error.response is not None and error.response.status_code == 401:
            api.whoami()  # of a token that is not valid the hub says the same as of a private repository
        return None


@contextmanager
def _refusals(repo: str) -> Iterator[None]:
    """Turns what the hub and its client refuse into one message."""
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    remedies = {
        401: ("the hub does not know this token", "`hf auth login` with a new one (HF_TOKEN comes first)"),
        403: ("this token may not write there", "a token that may write, of a member of ORG"),
        404: ("there is no such place on the hub", "ORG is your own name or that of an organisation"),
        409: ("somebody else changed the repository meanwhile", "the same command again"),
        412: ("somebody else changed the repository meanwhile", "the same command again"),
        429: ("the hub takes no more requests for now", "the same command again, later"),
    }  # fmt: skip
    try:
        yield
    except HFValidationError as error:
        raise InputError(str(error).split("\n", 1)[0], where=repo, remedy="ORG/NAME") from None
    except ValueError as error:  # of its client: no commit's sha, no JSON
        message = f"the hub's answer can't be used: {str(error).split(chr(10), 1)[0]:.300}"
        raise InputError(message, where=constants.ENDPOINT) from None
    except OfflineModeIsEnabled:
        raise InputError("the hub is switched off here", where=repo, remedy="unset HF_HUB_OFFLINE") from None
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        told = error.server_message or str(error).split("\n", 1)[0]
        message, remedy = remedies.get(status, (f"the hub refused: {told}", "the same command again"))
        raise InputError(f"{message} ({status})", where=repo, remedy=remedy) from None
    except Exception as error:
        # the client's errors of the network are those of the library that it is built on
        cause = error.__cause__ or error
        if not isinstance(cause, OSError) and not type(cause).__module__.startswith(("http", "requests")):
            raise
        raise InputError(
            f"the hub was not reached, or broke off: {str(error) or type(error).__name__:.300}",
            where=constants.ENDPOINT,
            remedy="the same command again: what has arrived is not sent twice, and nothing is half pushed",
        ) from None


def _record(folder: RunDir, pushed: Pushed) -> None:
    line = {
        "repo": pushed.repo,
        "commit": pushed.commit,
        "url": pushed.url,
        "private": pushed.private,
        "files": pushed.files,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    known = list(files.read_jsonl(folder.pushed_jsonl)) if folder.pushed_jsonl.is_file() else []
    files.write_jsonl(folder.pushed_jsonl, [*known, line])
