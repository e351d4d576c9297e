"""The peak memory of a process, for the other scripts."""

from pathlib import Path


def peak_mb() -> float:
    """The largest memory of this process so far. (getrusage's also counts that of the process which started this one.)"""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024
