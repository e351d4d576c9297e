"""A search on a PostgreSQL server: shared by processes that have no folder in common, one of them killed, and its password
shown nowhere."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import postgres
import pytest
import scipy.stats

from bert_ft.config.recipe import Range
from bert_ft.engine.batches import Plan
from bert_ft.errors import InputError, MachineError
from bert_ft.tools.search import storage
from bert_ft.tools.search.study import Trial, Trials

pytest.importorskip("psycopg", reason="psycopg is not installed")

SPACE = {"learning_rate": Range(low=1e-5, high=1e-3, log=True), "weight_decay": Range(low=0.0, high=0.3)}


@pytest.fixture(scope="module")
def server() -> Iterator[postgres.Server]:
    with postgres.server() as running:
        yield running


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "HEARTBEAT", 1)
    monkeypatch.setattr(storage, "GRACE", 5)


def trials(folder: Path, url: str, **options: Any) -> Trials:
    given = {"seed": 1, "sampler": None, "pruner": "median", "made_from": {}, "say": lambda line: None}
    return Trials(folder, SPACE, ("validation", "accuracy"), storage=url, **(given | options))


def score(trial: Trial) -> float:
    rate, decay = trial.recipe["learning_rate"], trial.recipe["weight_decay"]
    return float(-((np.log10(rate) + 4) ** 2) - (10 * (decay - 0.1)) ** 2)


def fork(work: Callable[[], Any]) -> int:
    if child := os.fork():
        return child
    try:
        work()
        os._exit(0)
    except BaseException as error:
        print(repr(error), file=sys.stderr, flush=True)
        os._exit(1)


def all_of(folder: Path, url: str, most: int, train: Callable[[Trial], float], **options: Any) -> None:
    shared = trials(folder, url, **options)
    while shared.step(most, train):
        pass


def known(url: str, name: str) -> list[Any]:
    """The trials as Optuna alone sees them."""
    return optuna.load_study(
        study_name=name, storage=url.replace("postgresql:", "postgresql+psycopg:")
    ).trials


def whole(url: str, name: str, most: int) -> None:
    """No trial is lost, and none counted twice: also none of a process that was only taken for dead, as one may be where a
    machine has ten times more to do than it can."""
    every = known(url, name)
    left = [trial.user_attrs["repeats"] for trial in every if "repeats" in trial.user_attrs]
    states = Counter(trial.state.name for trial in every)
    assert states["COMPLETE"] == most and len(every) == most + len(left), states
    assert len(left) == len(set(left)) == states["FAIL"], (left, states)
    assert all(every[number].state.name == "FAIL" for number in left)
    firsts = [
        trial.user_attrs.get("first", trial.number) for trial in every if trial.state.name == "COMPLETE"
    ]
    assert len(set(firsts)) == most
    for trial in every:  # what repeats another has its recipe, where that was drawn
        if "repeats" in trial.user_attrs and every[trial.user_attrs["repeats"]].params.keys() == SPACE.keys():
            assert trial.params == every[trial.user_attrs["repeats"]].params


def four_of_which_one_is_killed(place: Path, url: str, most: int, seed: int, pause: float) -> float:
    """Searches by four processes, each in a folder of its own as on a machine of its own; returns the best value."""
    draw, name = random.Random(seed), f"study-{seed}-{place.name}"

    def slow(trial: Trial) -> float:
        time.sleep(pause)
        return score(trial)

    folders = [place / f"machine-{n}" / name for n in range(4)]
    for folder in folders:
        folder.parent.mkdir(parents=True)
    began = [fork(lambda folder=folder: all_of(folder, url, most, slow, seed=seed)) for folder in folders]
    while not any((folders[0]).glob(".trial-*.lock")):  # it has taken one
        time.sleep(0.01)
        assert os.waitpid(began[0], os.WNOHANG) == (0, 0)
    time.sleep(draw.uniform(0, 2 * pause))
    os.kill(began[0], signal.SIGKILL)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in began]
    assert codes == [-signal.SIGKILL, 0, 0, 0]
    whole(url, name, most)
    return max(trial.value for trial in known(url, name) if trial.state.name == "COMPLETE")


@pytest.mark.usefixtures("quick")
def test_four_processes_of_which_one_is_killed(server: postgres.Server, tmp_path: Path) -> None:
    best = four_of_which_one_is_killed(tmp_path, server.url(), 12, 0, 0.5)
    assert best > -4


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_four_find_what_one_finds(server: postgres.Server, tmp_path: Path) -> None:
    """Thirty repetitions; in each a process is killed. Draws of four know less of each other than those of one, by how
    much a test of pairs says: medians of ten alone are as often worse as better."""
    four, one = [], []
    for seed in range(30):
        (tmp_path / str(seed)).mkdir()
        four.append(four_of_which_one_is_killed(tmp_path / str(seed), server.url(), 24, seed, 0.3))
        alone = trials(tmp_path / str(seed) / "alone", f"sqlite:///{tmp_path}/{seed}.db", seed=seed)
        while alone.step(24, score):
            pass
        one.append(alone.best()["value"])  # type: ignore[index]
    worse = scipy.stats.wilcoxon(four, one, alternative="less").pvalue
    print(f"best of 24 trials, medians (0 is best): by four processes {np.median(four):.4f}, by one {np.median(one):.4f}; "
          f"of 30 pairs {np.sum(np.greater(four, one))} better by four; that four are worse: p = {worse:.2f}")  # fmt: skip
    assert np.median(four) >= np.median(one) - 0.1 and worse > 0.01


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_killed_at_any_moment_on_a_server(server: postgres.Server, tmp_path: Path) -> None:
    """One process after the other, each in a folder that no other sees, and killed just before its n-th commit."""
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    url, draw, kills = server.url(), random.Random(1), 0
    name = "killed"
    for attempt in range(30):
        # what waits for a dead one's heartbeat to stop commits, too: later processes come further
        after = draw.randint(5, 60) * (1 + attempt // 4)

        def work(after: int = after, attempt: int = attempt) -> None:
            left = iter(range(after))

            def count(connection: Any) -> None:
                if next(left, None) is None:
                    os.kill(os.getpid(), signal.SIGKILL)

            event.listen(Engine, "commit", count)
            all_of(tmp_path / str(attempt) / name, url, 6, score)

        (tmp_path / str(attempt)).mkdir()
        child = fork(work)
        if (code := os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])) == 0:
            break
        assert code == -signal.SIGKILL
        kills += 1
    assert code == 0 and kills >= 3
    whole(url, name, 6)


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_living_processes_are_left_alone(server: postgres.Server, tmp_path: Path) -> None:
    """A trial that takes longer than the grace is nobody else's while its process lives."""
    name, url = "alive", server.url()
    for n in range(2):
        (tmp_path / str(n)).mkdir()

    def long(trial: Trial) -> float:
        (tmp_path / "began").touch()
        time.sleep(9)
        return score(trial)

    child = fork(lambda: all_of(tmp_path / "0" / name, url, 1, long))
    while not (tmp_path / "began").exists():
        time.sleep(0.01)
    said: list[str] = []
    assert trials(tmp_path / "1" / name, url, say=said.append).step(1, score) is None
    assert said == ["trials run in other processes: whether these are alive shows within some minutes"]
    assert os.waitpid(child, 0)[1] == 0
    whole(url, name, 1)
    assert len(known(url, name)) == 1


def test_a_folder_that_comes_back_leaves_the_others_trial(
    server: postgres.Server, tmp_path: Path, monkeypatch: Any
) -> None:
    """Its own trial was taken for dead, and is repeated by a process elsewhere: the lock file of old says nothing of that."""
    monkeypatch.setattr(storage, "HEARTBEAT", 1)
    monkeypatch.setattr(storage, "GRACE", 1)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    url, name = server.url(), "back"
    lost = trials(tmp_path / "a" / name, url)
    claimed = lost._claim(1)
    assert claimed is not None
    claimed[2].close()  # its process is gone; the file stays
    other = trials(tmp_path / "b" / name, url)
    time.sleep(2.5)
    again = other._claim(1)
    other.database.storage.record_heartbeat(again[0]._trial_id)  # type: ignore[index]
    assert again is not None and again[1] == claimed[1] and again[0].number != claimed[0].number
    back = trials(tmp_path / "a" / name, url)
    back.database.storage.grace_period = 60
    assert back._claim(1) is None, "the other one's heart beats"
    states = [trial.state.name for trial in known(url, name)]
    assert states == ["FAIL", "RUNNING"]


@pytest.mark.parametrize("pruner", ["median", "asha"])
def test_pruned_by_what_other_processes_told(server: postgres.Server, tmp_path: Path, pruner: str) -> None:
    """A process that has trained nothing itself prunes by the trials of another, as Optuna's own pruner would."""
    url, name = server.url(), f"pruned-{pruner}"
    for n in "ab":
        (tmp_path / n).mkdir()

    def train(values: list[float]) -> Callable[[Trial], float]:
        def work(trial: Trial) -> float:
            trial.pruning.on_start(Plan(100, 10, 4, 0), None)  # type: ignore[arg-type]
            for epoch, value in enumerate(values, 1):
                trial.pruning.on_evaluate(epoch * 10, {"validation": {"accuracy": value}}, False)
            return values[-1]

        return work

    first = trials(tmp_path / "a" / name, url, pruner=pruner)
    for k in range(6):
        assert first.step(20, train([0.8 + k / 100] * 4))["state"] == (
            "complete" if pruner == "median" or k >= 0 else ""
        )  # type: ignore[index]
    second = trials(tmp_path / "b" / name, url, pruner=pruner)
    row = second.step(20, train([0.1] * 4))
    assert row is not None and row["state"] == "pruned" and row["epoch"] == 1
    own = {"median": optuna.pruners.MedianPruner, "asha": optuna.pruners.SuccessiveHalvingPruner}[pruner]()
    assert isinstance(second.study.pruner, type(own))
    alone, states = optuna.create_study(pruner=own, direction="maximize"), list[Any]()
    for values in [*([0.8 + k / 100] * 4 for k in range(6)), [0.1] * 4]:
        trial = alone.ask()
        for epoch, value in enumerate(values, 1):
            trial.report(value, 1000 * epoch)
            if epoch < 4 and trial.should_prune():
                alone.tell(trial, state=optuna.trial.TrialState.PRUNED)
                break
        else:
            alone.tell(trial, values[-1])
    states = [(trial.state.name, trial.last_step) for trial in alone.trials]
    assert [(trial.state.name, trial.last_step) for trial in known(url, name)] == states
    assert second.step(20, train([0.99] * 4))["state"] == "complete"  # type: ignore[index]


# --- what goes wrong, and what is shown -------------------------------------------------------------------------------


def secrets() -> list[str]:
    from urllib.parse import quote

    return [postgres.PASSWORD, quote(postgres.PASSWORD), quote(postgres.PASSWORD, safe=""), "s3cret"]


def test_no_password_is_shown(
    server: postgres.Server, tmp_path: Path, tiny_checkpoint: Path, reviews: Path, cli: Any
) -> None:
    common = ("search", "classification", "-c", tiny_checkpoint, "--train", reviews / "train.csv", "--validation",
              reviews / "validation.csv", "--space", "learning_rate=1e-4..1e-3:log", "--trials", "1",
              "--set", "epochs=1", "--set", "max_length=16")  # fmt: skip
    done = cli(*common, "--storage", server.url(), "-o", "search", "--debug")
    assert done.code == 0, done
    texts = [done.out, done.err]
    assert len(list((tmp_path / "search").rglob("*"))) > 5
    for file in (path for path in tmp_path.rglob("*") if path.is_file()):
        texts.append(file.read_bytes().decode("utf-8", "replace"))
    wrong = server.url(password="s3cret, and wrong")
    for url in (
        wrong, server.url("nowhere"), server.url().replace(str(server.port), "1"), f"{server.url()}?password=s3cret-too",
        f"postgresql://127.0.0.1:{server.port}/postgres?user=tester&password=s3cret-too",
        server.url().replace("postgresql:", "postgresql+nodriver:"), server.url().replace("postgresql:", "nothing:"),
        f"postgresql://tester:s3cret@127.0.0.1:{server.port}x/postgres", "postgresql://tester:12/s3cret@127.0.0.1/postgres",
        "postgresql://tester:s3cret/12@127.0.0.1/postgres", "postgresql://tester:12@s3cret@127.0.0.1/postgres",
    ):  # fmt: skip
        done = cli(*common, "--storage", url, "-o", "another")
        assert done.code == 2 and "--storage" in done.err and "Traceback" not in done.err, (url, done)
        texts += [done.out, done.err]
    assert "password authentication failed" in "".join(texts[-22:-20])
    assert not [text for text in texts if any(secret in text for secret in secrets())]


def test_a_server_that_goes_away(tmp_path: Path) -> None:
    """One message, exit code 1; the trial is no failure of its own, and repeated once the server is back."""
    with postgres.server() as gone:
        url = gone.url()
        shared = trials(tmp_path / "s", url)

        def train(trial: Trial) -> float:
            gone.process.send_signal(signal.SIGINT)
            gone.process.wait(60)
            trial.pruning.on_start(Plan(100, 10, 4, 0), None)  # type: ignore[arg-type]
            trial.pruning.on_evaluate(10, {"validation": {"accuracy": 0.5}}, False)
            return 0.5

        with (
            pytest.raises(MachineError, match="the storage can't be used") as error,
            shared.database.errors(),
        ):
            shared.step(3, train)
        assert "s3cret" not in str(error.value) and "tester:***@127.0.0.1" in str(error.value)


def test_a_driver_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(InputError, match=r'psycopg is not installed\n  pip install "bert-ft\[postgres\]"'):
        trials(tmp_path / "s", "postgresql://tester@127.0.0.1/x")


@pytest.mark.parametrize(("url", "message"), [
    ("grpc://nowhere", "this is no address of a proxy\n  --storage grpc://HOST:PORT"),
    ("grpc://127.0.0.1:99999999", "this is no address of a proxy"),
    ("no url", "this is no URL of a storage"),
    ("postgresql://a\x9db/c", "this is no URL of a storage"),  # which no name server can be asked for
])  # fmt: skip
def test_addresses_at_fault(tmp_path: Path, url: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        trials(tmp_path / "s", url)
    assert message in str(error.value)


def test_a_pruner_that_is_none(cli: Any) -> None:
    done = cli("search", "classification", "-c", "nowhere", "--pruner", "ashes")
    assert done.code == 2 and "pruner: no pruner 'ashes'\n  did you mean 'asha'?" in done.err


def test_optunas_proxy(tmp_path: Path) -> None:
    """Two processes search through the proxy of an SQLite file."""
    pytest.importorskip("grpc", reason="grpcio is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = (
        "import optuna, sys; s = optuna.storages.get_storage(sys.argv[1]); "
        "optuna.storages.run_grpc_proxy_server(s, host='127.0.0.1', port=int(sys.argv[2]))"
    )
    proxy = subprocess.Popen([sys.executable, "-c", script, f"sqlite:///{tmp_path / 'behind.db'}", str(port)])
    try:
        for n in range(2):
            shared = trials(tmp_path / "p", f"grpc://127.0.0.1:{port}")
            for _ in range(3):
                shared.step(3 * (n + 1), score)
        rows = shared.rows()
        assert [row["state"] for row in rows] == ["complete"] * 6
        assert (
            len(optuna.load_study(study_name="p", storage=f"sqlite:///{tmp_path / 'behind.db'}").trials) == 6
        )
    finally:
        proxy.kill()
        proxy.wait()


def test_nothing_of_a_server_is_imported_without_one() -> None:
    script = (
        "import sys; import bert_ft.tools.search.search, bert_ft.tools.predict.many, bert_ft.tools.search.study; "
        "print([name for name in ('psycopg', 'grpc', 'ray') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done
