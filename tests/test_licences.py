"""What is installed of the pinned packages has a licence of a list, so that a new one does not come in unseen."""

from __future__ import annotations

import re
import sysconfig
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ALLOWED = {
    "MIT", "MIT-CMU", "0BSD", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "ISC", "Zlib", "CC0-1.0", "PSF-2.0", "CNRI-Python",
    "Apache-2.0", "LLVM-exception", "MPL-2.0",
}  # fmt: skip
WEAK = {"psycopg", "psycopg-binary", "pyte"}
"""Of the extra `postgres`, and of the tests: LGPL, under which whoever uses them may have a licence of their own."""
SAID = {  # by older packages, in words
    "MIT License": "MIT", "BSD License": "BSD-3-Clause", "3-Clause BSD License": "BSD-3-Clause", "Apache Software License": "Apache-2.0",
    "Apache 2.0": "Apache-2.0", "Apache 2.0 License": "Apache-2.0", "ISC License (ISCL)": "ISC",
    "Python Software Foundation License": "PSF-2.0", "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
}  # fmt: skip


def normal(name: str) -> str:
    return re.sub("[-_.]+", "-", name).lower()


def pinned() -> dict[str, str]:
    """Name -> version of every package that `make install` installs."""
    lock = re.findall(
        "^([\\w.-]+)==", (ROOT / "constraints-hashed.txt").read_text(encoding="utf-8"), re.MULTILINE
    )
    every = re.findall(
        "^([\\w.-]+)==(\\S+)", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE
    )
    names = {normal(name) for name in (*lock, "torch")}
    return {name: version for name, version in every if normal(name) in names}


def licences(about: metadata.PackageMetadata) -> set[str]:
    """The licences that a package names, by their SPDX names where these are known."""
    classifiers = [
        line.rpartition(" :: ")[2]
        for line in about.get_all("Classifier") or []
        if line.startswith("License :: OSI")
    ]
    text = (
        about.get("License-Expression") or " AND ".join(classifiers) or about.get("License") or "none at all"
    )
    parts = re.split(
        r" AND | OR | WITH |;", text.replace("(MPL 2.0)", "\0").replace("(ISCL)", "\1").strip("()")
    )
    named = (part.strip(" ()").replace("\0", "(MPL 2.0)").replace("\1", "(ISCL)") for part in parts)
    return {SAID.get(part, part) for part in named}


def installed() -> dict[str, metadata.PackageMetadata]:
    """Of the environment's own folders: ray puts one of copies on `sys.path` in the process of whichever test imports it."""
    own = sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
    here = {normal(each.name): each.metadata for each in metadata.distributions(path=own)}
    return {name: here[normal(name)] for name in pinned() if normal(name) in here}


def test_every_licence_is_one_of_the_list() -> None:
    here = installed()
    assert len(here) > 100
    other = {
        name: found
        for name, about in here.items()
        if (found := licences(about) - ALLOWED) and name not in WEAK
    }
    assert not other, "a licence that nobody has looked at: read it, then name it here"
    assert all(
        any("L" in each and "GPL" in each for each in licences(here[name])) for name in WEAK & here.keys()
    )


def test_the_written_list_has_what_is_pinned_and_installed() -> None:
    """`make licences` writes it anew."""
    written = re.findall(
        r"^\| (\S+) +\| (\S+) +\|", (ROOT / "constraints-licences.md").read_text(), re.MULTILINE
    )
    versions = {normal(name): version for name, version in written}
    for name in installed():
        assert versions.get(normal(name)) == pinned()[name], f"{name}: make licences"


def test_what_ray_puts_on_the_path_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray", reason="ray is not installed")
    monkeypatch.syspath_prepend(str(Path(ray.__file__).parent / "thirdparty_files"))
    assert metadata.version("colorama")
    assert "colorama" in pinned() and "colorama" not in installed()


@pytest.mark.parametrize(("says", "found"), [
    ({"License-Expression": "AGPL-3.0-only"}, {"AGPL-3.0-only"}), ({"License": "Proprietary"}, {"Proprietary"}), ({}, {"none at all"}),
    ({"Classifier": "License :: OSI Approved :: GNU General Public License v3 (GPLv3)"}, {"GNU General Public License v3 (GPLv3"}),
    ({"License-Expression": "MIT AND (Apache-2.0 OR GPL-2.0-only)"}, {"GPL-2.0-only"}),
])  # fmt: skip
def test_a_licence_that_is_not_on_the_list_is_seen(says: dict[str, str], found: set[str]) -> None:
    from email.message import Message

    about = Message()
    for key, value in says.items():
        about[key] = value
    assert licences(about) - ALLOWED == found  # type: ignore[arg-type]
