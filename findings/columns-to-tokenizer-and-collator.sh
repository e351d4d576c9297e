#!/usr/bin/env bash
# Guess: a tokenizer takes a column of a data set or of a frame as it takes a list, and a collator keeps numbers as they are.
# Found: a column of datasets and a Series of pandas are refused (a slice of the first is a list, and is taken). The default
# collator takes the type of all labels from the first row: 1 and 1.5 become 1 and 1, and 1.5 and 1 stay.
source "$(dirname "$0")/environment.bash"
python=$(environment transformers==5.23.0 datasets==5.2.0 pandas==3.1.1)
"$python" - <<'PY'
import sys

import datasets
import pandas as pd
import transformers
from transformers import BertTokenizer, default_data_collator

print("transformers", transformers.__version__, "datasets", datasets.__version__, "pandas", pd.__version__)
tokenizer = BertTokenizer(vocab={piece: i for i, piece in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b"])})
column = datasets.Dataset.from_dict({"text": ["a", "b"]})["text"]
found = {}
for name, texts in (("column of datasets", column), ("a slice of it", column[:]), ("Series of pandas", pd.Series(["a", "b"]))):
    try:
        found[name] = tokenizer(texts)["input_ids"]
    except Exception as error:
        found[name] = type(error).__name__
for labels in ([1, 1.5], [1.5, 1]):
    found[f"labels {labels} collated"] = default_data_collator([{"label": label} for label in labels], return_tensors="np")[
        "labels"
    ].tolist()
for case, value in found.items():
    print(f"{case}: {value}")
sys.exit(list(found.values()) != ["ValueError", [[2, 5, 3], [2, 6, 3]], "ValueError", [1, 1], [1.5, 1.0]])
PY
