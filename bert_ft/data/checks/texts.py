"""What is wrong with the texts of any family: pure functions over canonical rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pac

from bert_ft.data.checks.columns import encode, fold, has_target, is_text, mask_of, numbers, plain
from bert_ft.data.checks.findings import at, excerpt
from bert_ft.data.finding import KEPT, Finding, Severity
from bert_ft.data.loading import Family
from bert_ft.data.rows import Rows

# What the second and later bytes of UTF-8 become when they are read as Latin-1 or Windows-1252:
# "Ã©", "â€™", "Ð¿Ñ€"
TAIL = "[\x80-\xbf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]"
# what -> its severity, its pattern; a row is listed under the first that fits
TROUBLE: dict[str, tuple[Severity, str]] = {
    "rows with U+FFFD, the mark of a character lost in decoding": ("warning", "\ufffd"),
    "rows with mojibake: UTF-8 that was read in another encoding": (
        "warning",
        f"Ã[\x80-\xbf‰œŸ]|Â[\xa0-\xbf]|â[€\x80]|ï»¿|ðŸ|锟斤拷|(?:[ÐÑ]{TAIL}){{2}}|(?:[ä-é]{TAIL}{{2}}){{2}}",
    ),
    "rows with control characters": ("note", "[\x01-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufeff]|\\x00"),
}
MISSING = ["nan", "NaN", "NaT", "None", "null", "NULL", "<NA>", "#N/A"]  # what programs write for a null


def of_rows(adapter: Family, sets: Mapping[str, Rows]) -> list[Finding]:
    """All findings that need neither a tokenizer nor columns without a role: the short form's."""
    return [*of_texts(sets, adapter.texts, adapter.target), *adapter.checks(sets)]


def of_texts(sets: Mapping[str, Rows], roles: Sequence[str], target: str) -> list[Finding]:
    """Empty texts, encoding trouble, duplicates in a set, overlap with "train", conflicting targets.

    Two rows are the same where each of their texts is, after NFKC normalisation and case folding and with
    every run of white space as one space.

    Args:
        roles: the columns that the model reads, of strings or of lists of strings (words).
        target: the column of what is learned.
    """
    texts = {
        name: {role: plain(rows.table[role]) for role in roles if is_text(rows.table, role)}
        for name, rows in sets.items()
    }
    if not all(texts.values()):
        return []
    findings: list[Finding] = []
    keys = []
    for name, columns in texts.items():
        rows = sets[name]
        folded = {role: fold(column) for role, column in columns.items()}
        for role, column in columns.items():
            what = "text" if len(columns) == 1 else role
            missing = mask_of(pac.is_in(column, pa.array(MISSING, column.type)))
            blank = mask_of(pac.equal(folded[role], ""))
            # the official scripts score every question, an empty one too; a family refuses what is amiss
            severity: Severity = "note" if role == "question" else "fault"
            findings += at("empty", severity, name, rows, blank, f"rows without {what}", roles)
            findings += at(
                "empty",
                "warning",
                name,
                rows,
                missing,
                f"rows whose {what} only marks a missing value",
                roles,
            )
        keys.append(pac.binary_join_element_wise(*folded.values(), pa.scalar("\x1f", pa.large_string())))
    codes = dict(zip(sets, encode(keys), strict=True))
    for name in [name for name in sets if name != "train" and "train" in sets]:
        shared = np.isin(codes[name], codes["train"])
        train = codes["train"]
        firsts = [int(np.argmax(train == code)) for code in codes[name][shared][:KEPT]]
        others = [f"train {sets['train'].named(i)}" for i in firsts]
        findings += at(
            "overlap", "warning", name, sets[name], shared, "rows also found in train", roles, others
        )
    findings += _conflicts(sets, codes, roles, target)
    for name, rows in sets.items():
        _, first, inverse = np.unique(codes[name], return_index=True, return_inverse=True)
        again = first[inverse] != np.arange(len(rows))
        others = [f"as {rows.named(i)}" for i in first[inverse[again][:KEPT]]]
        findings += at(
            "duplicates", "note", name, rows, again, "rows repeating an earlier one", roles, others
        )
        for role, column in texts[name].items():
            findings += _encoding(name, rows, role, column)
    return findings


def _encoding(name: str, rows: Rows, role: str, column: pa.Array) -> Iterator[Finding]:
    remaining = mask_of(
        pac.match_substring_regex(column, "|".join(pattern for _, pattern in TROUBLE.values()))
    )
    for message, (severity, pattern) in TROUBLE.items():
        mask = remaining.copy()
        mask[remaining] = mask_of(pac.match_substring_regex(column.filter(remaining), pattern))
        remaining &= ~mask
        yield from at("encoding", severity, name, rows, mask, message, [role], pattern=pattern)


def _conflicts(
    sets: Mapping[str, Rows], codes: Mapping[str, np.ndarray], roles: Sequence[str], target: str
) -> Iterator[Finding]:
    """Rows whose text has another target too, in its set or in train; numbers: more than a standard deviation
    away."""
    names = [name for name, rows in sets.items() if has_target(rows, target)]
    values = dict(zip(names, numbers([sets[name].table[target] for name in names]), strict=True))
    for name in names:
        homes = [name, "train"] if name != "train" and "train" in names else [name]
        key, value = (np.concatenate([of[home] for home in homes]) for of in (codes, values))
        number = pa.types.is_floating(sets[name].table[target].type)
        apart = np.nanstd(value) if number else 0.0
        low, high = np.full(key.max() + 1, np.inf), np.full(key.max() + 1, -np.inf)
        np.fmin.at(low, key, value)
        np.fmax.at(high, key, value)
        mask = (high - low > apart)[codes[name]] & ~np.isnan(values[name])
        others = []
        for i in np.flatnonzero(mask)[:KEPT].tolist():
            same = np.flatnonzero((key == key[i]) & ~np.isnan(value))
            j = int(same[np.argmax(np.abs(value[same] - value[i]))])
            home, j = (name, j) if j < len(sets[name]) else ("train", j - len(sets[name]))
            mine, other = (
                excerpt(str(plain(sets[n].table[target].slice(k, 1))[0])) for n, k in ((name, i), (home, j))
            )
            others.append(f"{mine}; {other} in {home} {sets[home].named(j)}")
        what = "whose text has " + (
            "a target more than a standard deviation away" if number else "another label too"
        )
        where = "" if name == "train" else ", here or in train"
        yield from at("conflicts", "warning", name, sets[name], mask, f"rows {what}{where}", roles, others)


def first_texts(rows: Rows, roles: Sequence[str], most: int = 500) -> list[str]:
    """The beginnings of the texts of the first rows, in the order of the roles; the words of a list
    joined."""
    columns = (plain(rows.table[role].slice(0, most)) for role in roles if role in rows.table.column_names)
    return [text for column in columns for text in pac.utf8_slice_codeunits(column, 0, most).to_pylist()]
