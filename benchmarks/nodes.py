"""A Ray cluster of several nodes on this machine, in a network of its own: for benchmarks/cluster.py and the tests."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled", "RAY_DEDUP_LOGS": "0"}
"""Nobody else reaches this network, so that the nodes need no token."""
STORE = 80 * 2**20  # bytes of a node's object store


def alone() -> list[str]:
    """What stands before a command that is to have a network of its own, with nothing but loopback; empty where
    this machine does not allow it."""
    if not (shutil.which("unshare") and shutil.which("ip")):
        return []
    for flags in (["-n"], ["-rn"]):
        prefix = ["unshare", *flags, "sh", "-c", 'ip link set lo up && exec "$@"', "-"]
        if subprocess.run([*prefix, "true"], capture_output=True).returncode == 0:
            return prefix
    return []


def below(process: int) -> list[int]:
    """A process and all that come from it, the oldest first."""
    parents: dict[int, list[int]] = {}
    for place in Path("/proc").iterdir():
        if place.name.isdigit():
            try:
                parent = int((place / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError):
                continue  # it has ended
            parents.setdefault(parent, []).append(int(place.name))
    found = [process]
    for each in found:
        found += parents.get(each, [])
    return found


class Nodes:
    """A head without room for runs, and nodes with room for one each. Inside `alone()` only."""

    def __init__(self, count: int, folder: Path) -> None:
        os.environ.update(ENVIRONMENT)
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": STORE}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        self.address = self.cluster.address
        self.nodes = [self.add() for _ in range(count)]
        self.cluster.wait_for_nodes()

    def add(self) -> Any:
        return self.cluster.add_node(num_cpus=1, object_store_memory=STORE)

    def kill(self, at: int) -> int:
        """Ends a node as a power cut does: every process of it at once. Returns how many runs were on it."""
        node = self.nodes.pop(at)
        raylets = [each.process.pid for each in node.all_processes["raylet"]]
        doomed = [each for raylet in raylets for each in below(raylet)]
        runs = sum(b"bert_ft.jobs.child" in _words(each) for each in doomed)
        for each in doomed:
            with contextlib.suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)
        self.cluster.remove_node(node, allow_graceful=False)
        return runs

    def replace(self) -> None:
        """A node comes in the place of one that is gone."""
        self.nodes.append(self.add())

    def close(self) -> None:
        self.cluster.shutdown()
        time.sleep(0.5)


def _words(process: int) -> bytes:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return b""
