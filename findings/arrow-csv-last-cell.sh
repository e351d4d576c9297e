#!/usr/bin/env bash
# Guess: whether a CSV file ends with a newline changes nothing but the newline. With empty cells as null and quoted ones
# not (strings_can_be_null, quoted_strings_can_be_null=False), the last cell of `"y",` is null either way.
# Found: pyarrow reads that cell as null where a newline follows, and as an empty string where the file ends there, if the
# cell before it is quoted: a row of one and the same table has a text or has none by the file's last byte.
source "$(dirname "$0")/environment.bash"
python=$(environment pyarrow==26.0.1)
"$python" - <<'PY'
import io
import sys

import pyarrow as pa
from pyarrow import csv

print("pyarrow", pa.__version__)


def last(content: bytes) -> object:
    table = csv.read_csv(
        io.BytesIO(content),
        read_options=csv.ReadOptions(column_names=["a", "b"]),
        convert_options=csv.ConvertOptions(
            column_types={"a": pa.string(), "b": pa.string()},
            strings_can_be_null=True,
            null_values=[""],
            quoted_strings_can_be_null=False,
        ),
    )
    return table["b"][-1].as_py()


cells = {}
for quoted in (True, False):
    for end in ("\n", ""):
        content = ('x,1\n"y",' if quoted else "x,1\ny,") + end
        cells[quoted, end] = last(content.encode())
        print(f"{content!r:>14} -> last cell {cells[quoted, end]!r}")
sys.exit(cells != {(True, "\n"): None, (True, ""): "", (False, "\n"): None, (False, ""): None})
PY
