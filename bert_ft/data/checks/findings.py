"""From what is wrong with rows to findings, and these in short."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np

from bert_ft.data.checks.columns import plain
from bert_ft.data.finding import KEPT, Finding, Severity
from bert_ft.data.rows import Rows
from bert_ft.errors import escaped

WIDTH = 200  # characters of an example


def at(
    check: str,
    severity: Severity,
    name: str,
    rows: Rows,
    mask: np.ndarray,
    message: str,
    roles: Sequence[str],
    others: Sequence[str] = (),
    pattern: str = "",
) -> Iterator[Finding]:
    """The finding of the rows where `mask` (N,) is true, if there are any; their texts are the examples.

    Args:
        others: what to say beside each example's place, such as the row it repeats.
        pattern: what an example is to show; its beginning by default.
    """
    indices = np.flatnonzero(mask)
    if len(indices):
        few = indices[:KEPT].tolist()
        sample = rows.table.select([role for role in roles if role in rows.table.column_names]).take(few)
        texts = zip(*(plain(column).to_pylist() for column in sample.columns), strict=True)
        examples = [" | ".join(excerpt(text, pattern) for text in row) for row in texts]
        places = [rows.place(i) for i in few]
        if others:
            places = [f"{place} ({other})" for place, other in zip(places, others, strict=True)]
        yield Finding(check, severity, name, len(indices), message, examples, places)


def listed(
    severity: Severity, name: str, message: str, examples: list[str], check: str = "balance"
) -> Iterator[Finding]:
    """The finding of what the examples name, if there is any."""
    if examples:
        yield Finding(
            check, severity, name, len(examples), message, [excerpt(text) for text in examples[:KEPT]]
        )


def excerpt(text: str, pattern: str = "", most: int = WIDTH) -> str:
    """The text's beginning, or what is around the pattern, on one line; what can't be seen is written as its
    escape."""
    match = re.search(pattern, text) if pattern else None
    start = max(0, match.start() - 20) if match else 0
    before = "…" if start > 0 else ""
    after = "…" if len(text) > start + most else ""
    return escaped(f"{before}{text[start : start + most].strip()}{after}")


# --- the short form


def lines(findings: Sequence[Finding], limit: int = 5) -> list[str]:
    """A line for each fault and warning, the gravest first; of more than `limit`, how many more there are."""
    grave = [finding for finding in findings if finding.severity != "note"]
    grave.sort(key=lambda finding: finding.severity)  # "fault" < "warning"
    result = []
    for finding in grave[:limit]:
        first = "\n".join([*dict.fromkeys(finding.places)][:3])
        numbers = re.findall(r", row (\d+)(?: \(|$)", first, re.MULTILINE)
        more = ", ..." if finding.count > len(numbers) else ""
        unit = "rows" if finding.count > 1 else "row"
        place = f" ({unit} {', '.join(numbers)}{more})" if numbers else ""
        if finding.examples and not finding.places:
            examples = [*finding.examples[:3], *(["..."] if len(finding.examples) > 3 else [])]
            place = ": " + "; ".join(examples)
        result.append(f"check: {finding.set}: {finding.count:,} {finding.phrase}{place}")
    remaining = len(grave) - limit
    if remaining > 0:
        result.append(f"check: {remaining} more: `bert-ft check` lists them")
    return result
