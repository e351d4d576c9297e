"""Many inputs are tried on each promise: by default the first few of each test, all of them with `-m "slow or not slow"`."""

from __future__ import annotations

from collections import Counter

import pytest

BY_DEFAULT = 2  # inputs of a test


@pytest.hookimpl(tryfirst=True)  # before the slow ones are left out
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    seen: Counter[str] = Counter()
    for item in items:
        if "tests/security/" not in item.nodeid:
            continue
        test = item.nodeid.partition("[")[0]
        seen[test] += 1
        if seen[test] > BY_DEFAULT:
            item.add_marker(pytest.mark.slow)
