"""Says what pip-audit has found: `python .ci/audited.py INDEX FILE.json`."""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main(index: str, file: str) -> int:
    """The exit code: 1 where a pinned package has a known fault, 3 where the index knew none of the packages,
    and so was not reached."""
    packages = json.loads(Path(file).read_text(encoding="utf-8"))["dependencies"]
    audited = [package for package in packages if "vulns" in package]
    if not audited:
        print(
            f"{index}: {len(packages)} packages, none of which it could say anything about", file=sys.stderr
        )
        return 3
    print(f"{index}: {len(audited)} of {len(packages)} pinned packages audited")
    for package in packages:
        if "skip_reason" in package:
            print(f"  not audited: {package['name']}: {package['skip_reason']}")
    found = [(package, fault) for package in audited for fault in package["vulns"]]
    for package, fault in found:
        fixed = ", ".join(fault.get("fix_versions", [])) or "no version yet"
        print(f"  {package['name']} {package['version']}: {fault['id']}, mended in {fixed}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
