#!/usr/bin/env bash
# Guess: astype(str) leaves no missing value, as in pandas 2, where it gave the text "None"; and LabelEncoder refuses a missing
# label, or one of another type.
# Found: pandas 3 keeps it missing. LabelEncoder makes it a class of its own, the last, and a classifier has one label more.
source "$(dirname "$0")/environment.bash"
cat >"$work/run.py" <<'PY'
import sys

import pandas as pd
import sklearn
from sklearn.preprocessing import LabelEncoder

print("pandas", pd.__version__, "scikit-learn", sklearn.__version__)
texts = pd.Series(["a", None]).astype(str).tolist()
try:
    classes = LabelEncoder().fit(pd.Series(["b", "a", None])).classes_.tolist()
except Exception as error:
    classes = type(error).__name__
print("as text:", texts, "classes of b, a and a missing one:", classes)
sys.exit([str(texts), str(classes)] != sys.argv[1:])
PY
new=$(environment datasets==5.2.0 pandas==3.1.1 evaluate==0.4.6 scikit-learn==1.9.1)
"$new" "$work/run.py" "['a', nan]" "['a', 'b', nan]"
