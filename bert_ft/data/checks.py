"""What is wrong with the texts of any family, found before training: pure functions over canonical rows."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pac

from bert_ft.data import Family, Rows
from bert_ft.data import columns as cells
from bert_ft.errors import escaped

Severity = Literal["fault", "warning", "note"]
KEPT = 100  # examples that a finding keeps
WIDTH = 200  # characters of one
# What the second and later bytes of UTF-8 become when they are read as Latin-1 or Windows-1252: "Ã©", "â€™", "Ð¿Ñ€"
TAIL = "[\x80-\xbf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]"
TROUBLE: dict[str, tuple[Severity, str]] = {  # what -> its severity, its pattern; a row is told under the first
    "rows with U+FFFD, the mark of a character lost in decoding": ("warning", "\ufffd"),
    "rows with mojibake: UTF-8 that was read in another encoding": (
        "warning",
        f"Ã[\x80-\xbf‰œŸ]|Â[\xa0-\xbf]|â[€\x80]|ï»¿|ðŸ|锟斤拷|(?:[ÐÑ]{TAIL}){{2}}|(?:[ä-é]{TAIL}{{2}}){{2}}",
    ),
    "rows with control characters": ("note", "[\x01-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufeff]|\\x00"),
}
MISSING = ["nan", "NaN", "NaT", "None", "null", "NULL", "<NA>", "#N/A"]  # what programs write for a null


@dataclass(frozen=True)
class Finding:
    """One thing that a person should know about one set.

    Attributes:
        check: the name of the check.
        severity: fault (can't be learned from or scored), warning (numbers may mislead), note (worth knowing).
        set: the set it is about.
        count: of the rows, labels or columns that the message names.
        message: a noun phrase that goes on where the count ends, in the plural: "rows without text".
        examples: the first of them, at most `KEPT`, shortened.
        places: where each example stands ("FILE, row N"); empty where examples have no place.
    """

    check: str
    severity: Severity
    set: str
    count: int
    message: str
    examples: list[str] = field(default_factory=list)
    places: list[str] = field(default_factory=list)

    @property
    def phrase(self) -> str:
        """The message, in the number of the count: "rows ..." or "row ..."."""
        return re.sub(r"^(\w+)s\b", r"\1", self.message) if self.count == 1 else self.message


def at(
    check: str, severity: Severity, name: str, rows: Rows, mask: np.ndarray, message: str, roles: Sequence[str],
    others: Sequence[str] = (), pattern: str = "",
) -> Iterator[Finding]:  # fmt: skip
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
        examples = [" | ".join(shown(text, pattern) for text in row) for row in texts]
        places = [rows.place(i) for i in few]
        if others:
            places = [f"{place} ({other})" for place, other in zip(places, others, strict=True)]
        yield Finding(check, severity, name, len(indices), message, examples, places)


def shown(text: str, pattern: str = "", most: int = WIDTH) -> str:
    """The text's beginning, or what is around the pattern, on one line; what can't be seen is written as its escape."""
    match = re.search(pattern, text) if pattern else None
    start = max(0, match.start() - 20) if match else 0
    cut = "…" * (start > 0) + text[start : start + most].strip() + "…" * (len(text) > start + most)
    return escaped(cut)


def of_rows(family: Family, sets: Mapping[str, Rows]) -> list[Finding]:
    """All findings that need neither a tokenizer nor columns without a role: the short form's."""
    return [*of_texts(sets, family.texts, family.target), *family.checks(sets)]


def of_texts(sets: Mapping[str, Rows], roles: Sequence[str], target: str) -> list[Finding]:
    """Empty texts, encoding trouble, duplicates in a set, overlap with "train", conflicting targets.

    Two rows are the same where each of their texts is, after NFKC normalisation and case folding and with every run
    of white space as one space.

    Args:
        roles: the columns that the model reads, of strings or of lists of strings (words).
        target: the column of what is learned.
    """
    texts = {
        name: {role: plain(rows.table[role]) for role in roles if _is_text(rows.table, role)}
        for name, rows in sets.items()
    }
    if not all(texts.values()):
        return []
    found: list[Finding] = []
    keys = []
    for name, columns in texts.items():
        rows, folded = sets[name], {role: fold(column) for role, column in columns.items()}
        for role, column in columns.items():
            what = "text" if len(columns) == 1 else role
            gone = mask_of(pac.is_in(column, pa.array(MISSING, column.type)))
            blank = mask_of(pac.equal(folded[role], ""))
            found += at("empty", "fault", name, rows, blank, f"rows without {what}", roles)
            found += at("empty", "warning", name, rows, gone, f"rows whose {what} is a word for nothing", roles)
        keys.append(pac.binary_join_element_wise(*folded.values(), pa.scalar("\x1f", pa.large_string())))
    codes = dict(zip(sets, encode(keys), strict=True))
    for name in [name for name in sets if name != "train" and "train" in sets]:
        shared, train = np.isin(codes[name], codes["train"]), codes["train"]
        firsts = [int(np.argmax(train == code)) for code in codes[name][shared][:KEPT]]
        others = [f"train row {sets['train'].number(i)}" for i in firsts]
        found += at("overlap", "warning", name, sets[name], shared, "rows standing in train too", roles, others)
    found += _conflicts(sets, codes, roles, target)
    for name, rows in sets.items():
        _, first, inverse = np.unique(codes[name], return_index=True, return_inverse=True)
        again = first[inverse] != np.arange(len(rows))
        others = [f"as row {rows.number(i)}" for i in first[inverse[again][:KEPT]]]
        found += at("duplicates", "note", name, rows, again, "rows repeating an earlier one", roles, others)
        for role, column in texts[name].items():
            found += _encoding(name, rows, role, column)
    return found


def _encoding(name: str, rows: Rows, role: str, column: pa.Array) -> Iterator[Finding]:
    left = mask_of(pac.match_substring_regex(column, "|".join(pattern for _, pattern in TROUBLE.values())))
    for message, (severity, pattern) in TROUBLE.items():
        mask = left.copy()
        mask[left] = mask_of(pac.match_substring_regex(column.filter(left), pattern))
        left &= ~mask
        yield from at("encoding", severity, name, rows, mask, message, [role], pattern=pattern)


def _conflicts(
    sets: Mapping[str, Rows], codes: Mapping[str, np.ndarray], roles: Sequence[str], target: str
) -> Iterator[Finding]:  # fmt: skip
    """Rows whose text has another target too, in its set or in train; numbers: more than a standard deviation away."""
    names = [name for name, rows in sets.items() if has_target(rows, target)]
    values = dict(zip(names, _numbers([sets[name].table[target] for name in names]), strict=True))
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
            mine, other = (shown(str(plain(sets[n].table[target].slice(k, 1))[0])) for n, k in ((name, i), (home, j)))
            others.append(f"{mine}; {other} in {home} row {sets[home].number(j)}")
        what = "whose text has " + ("a target more than a standard deviation away" if number else "another label too")
        where = "" if name == "train" else ", here or in train"
        yield from at("conflicts", "warning", name, sets[name], mask, f"rows {what}{where}", roles, others)


# --- columns ----------------------------------------------------------------------------------------------------------


def plain(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """(N,) large_string: texts as they are, the words of a list joined, "" for a null."""
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        column = pac.binary_join(column.cast(pa.list_(pa.string())), " ")
    return pac.fill_null(column.cast(pa.large_string()), "")


def first_texts(rows: Rows, roles: Sequence[str], most: int = 500) -> list[str]:
    """The beginnings of the texts of the first rows, in the order of the roles; the words of a list joined."""
    columns = (plain(rows.table[role].slice(0, most)) for role in roles if role in rows.table.column_names)
    return [text for column in columns for text in pac.utf8_slice_codeunits(column, 0, most).to_pylist()]


def fold(column: pa.Array) -> pa.Array:
    """Texts after NFKC normalisation and case folding, with every run of white space as one space."""
    folded = pac.utf8_trim_whitespace(pac.utf8_lower(column))  # all that most ASCII texts need
    hard = pac.or_(pac.invert(pac.string_is_ascii(column)), pac.match_substring_regex(folded, r"\s\s|[\t-\r\x1c-\x1f]"))
    texts = (unicodedata.normalize("NFKC", text).casefold() for text in column.filter(hard).to_pylist())
    return pac.replace_with_mask(folded, hard, pa.array([" ".join(text.split()) for text in texts], folded.type))


def encode(columns: Sequence[pa.Array]) -> list[np.ndarray]:
    """Each column as (N,) int64 codes: equal values have equal codes, in all of them; -1 for a null."""
    ends = np.cumsum([len(column) for column in columns])
    return np.split(cells.codes(pa.chunked_array(columns)).astype(np.int64), ends[:-1])


def _is_text(table: pa.Table, role: str) -> bool:
    kind = table.schema.field(role).type if role in table.column_names else None
    kind = kind.value_type if kind is not None and pa.types.is_list(kind) else kind
    return kind in (pa.string(), pa.large_string())


def has_target(rows: Rows, target: str) -> bool:
    """Whether any row has a target, and one that can be compared: a name, several names, or a number."""
    if target not in rows.table.column_names or rows.table[target].null_count == len(rows):
        return False
    kind = rows.table[target].type
    inner = kind.value_type if pa.types.is_list(kind) else kind
    return bool(pa.types.is_string(inner) or pa.types.is_floating(kind))


def _numbers(columns: Sequence[pa.ChunkedArray]) -> list[np.ndarray]:
    """Targets as (N,) float64: the numbers, or codes of the names; NaN where a row has none."""
    if not columns or pa.types.is_floating(columns[0].type):
        return [column.to_numpy() for column in columns]
    codes = encode([pac.if_else(pac.is_valid(column.combine_chunks()), plain(column), None) for column in columns])
    return [np.where(code < 0, np.nan, code) for code in codes]


def mask_of(column: pa.Array) -> np.ndarray:
    """(N,) bool."""
    mask: np.ndarray = column.to_numpy(zero_copy_only=False)
    return mask


# --- the short form ---------------------------------------------------------------------------------------------------


def lines(findings: Sequence[Finding], most: int = 5) -> list[str]:
    """A line for each fault and warning, the gravest first; of more than `most`, how many more there are."""
    grave = sorted((f for f in findings if f.severity != "note"), key=lambda f: f.severity)  # "fault" < "warning"
    told = []
    for finding in grave[:most]:
        numbers = re.findall(r", row (\d+)(?: \(|$)", "\n".join(finding.places[:3]), re.MULTILINE)
        more = ", ..." * (finding.count > len(numbers))
        place = f" (row{'s' * (finding.count > 1)} {', '.join(numbers)}{more})" if numbers else ""
        if finding.examples and not finding.places:
            place = ": " + "; ".join(finding.examples[:3]) + "; ..." * (len(finding.examples) > 3)
        told.append(f"check: {finding.set}: {finding.count:,} {finding.phrase}{place}")
    left = len(grave) - most
    return told + [f"check: {left} more: `bert-ft check` lists them"] * (left > 0)
