#!/usr/bin/env bash
# Guess: rows chosen from a frame either bring their index into the data set, or don't; and a file with tabs between its
# columns has the columns that the tabs make.
# Found: every second row brings none (pandas keeps a RangeIndex of step 2), any three of four bring __index_level_0__. The conll
# loader divides at any white space: a name of two words moves the columns by one, what stands over is cut off, and the tag is
# another column's.
source "$(dirname "$0")/environment.bash"
python=$(environment datasets==5.2.0 pandas==3.1.1 evaluate==0.4.6 scikit-learn==1.9.1)
"$python" - "$work/tagged.conll" <<'PY'
import sys

import datasets
import pandas as pd

datasets.disable_progress_bars()
print("datasets", datasets.__version__, "pandas", pd.__version__)
frame = pd.DataFrame({"text": list("abcd")})
columns = {tuple(chosen): datasets.Dataset.from_pandas(frame[list(chosen)]).column_names
           for chosen in ((True, False, True, False), (True, True, False, True))}  # fmt: skip
for chosen, names in columns.items():
    print(f"rows {[i for i, take in enumerate(chosen) if take]} of 4: columns {names}")
with open(sys.argv[1], "w") as stream:
    stream.write("1\tNew York\tPROPN\tB-LOC\n2\tsleeps\tVERB\tO\n\n")
read = datasets.load_dataset("conll", data_files=sys.argv[1], column_names=["id", "word", "pos", "ner"], split="train",
                             cache_dir=f"{sys.argv[1]}-cache")
print("words", read[0]["word"], "tags", read[0]["ner"])
sys.exit(not ([len(names) for names in columns.values()] == [1, 2] and read[0]["ner"] == ["PROPN", "O"]))
PY
