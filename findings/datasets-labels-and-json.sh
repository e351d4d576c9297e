#!/usr/bin/env bash
# Guess: a label that is none of a ClassLabel's names is refused; a Categorical of pandas becomes a ClassLabel; a JSON file
# whose labels have two types is refused or made text; and a nested row has all keys of its column.
# Found: cast_column reads a text of digits that is no name as the id: "0" becomes label "1" of ["1", "2"], in silence, and
# keeps -5, which from_dict refuses. A Categorical becomes text. The JSON loader keeps 1 and "x" in one column of type Json, and
# {"x": 1} as it is, where from_list adds {"y": None}.
source "$(dirname "$0")/environment.bash"
python=$(environment datasets==5.2.0 pandas==3.1.1 evaluate==0.4.6 scikit-learn==1.9.1)
"$python" - "$work/rows.jsonl" <<'PY'
import json
import sys

import datasets
import pandas as pd
from datasets import ClassLabel, Dataset, Features

datasets.disable_progress_bars()
print("datasets", datasets.__version__, "pandas", pd.__version__)
found = {}


def note(case: str, make: object) -> None:
    try:
        found[case] = make()
    except Exception as error:
        found[case] = type(error).__name__
    print(f"{case}: {found[case]}")


def cast(labels: list[object], names: list[str]) -> object:
    return list(Dataset.from_dict({"label": labels}).cast_column("label", ClassLabel(names=names))["label"])


def loaded(rows: list[object]) -> tuple[str, list[object]]:
    with open(sys.argv[1], "w") as stream:
        stream.writelines(json.dumps({"value": row}) + "\n" for row in rows)
    data = datasets.load_dataset("json", data_files=sys.argv[1], split="train", cache_dir=f"{sys.argv[1]}-{len(found)}")
    return type(data.features["value"]).__name__, list(data["value"])


def categorical() -> tuple[str, str]:
    data = Dataset.from_pandas(pd.DataFrame({"label": pd.Categorical(["pos", "neg"])}))
    return str(data.features["label"]), data[0]["label"]


note('"0", "2" cast to the names "1", "2"', lambda: cast(["0", "2"], ["1", "2"]))
note('"good" cast to the names "1", "2"', lambda: cast(["good"], ["1", "2"]))
note('-5, 0 cast to the names "a", "b"', lambda: cast([-5, 0], ["a", "b"]))
features = Features(label=ClassLabel(names=["a", "b"]))
note("-5, 0 from_dict with these names", lambda: list(Dataset.from_dict({"label": [-5, 0]}, features=features)["label"]))
note("a Categorical of pandas", categorical)
note('JSON lines with 1 and "x"', lambda: loaded([1, "x"]))
note("JSON lines with other keys in each", lambda: loaded([{"x": 1}, {"y": 2}])[1])
note("the same from_list", lambda: list(Dataset.from_list([{"value": {"x": 1}}, {"value": {"y": 2}}])["value"]))
expected = [[0, 1], "ValueError", [-5, 0], "ValueError", ("Value('large_string')", "pos"), ("Json", [1, "x"]),
            [{"x": 1}, {"y": 2}], [{"x": 1, "y": None}, {"x": None, "y": 2}]]
sys.exit(list(found.values()) != expected)
PY
