#!/usr/bin/env bash
# Guess: a config that is saved with two labels is loaded with two labels.
# Found: for BART two labels are saved as none, since two are the library's general default and are left out, and none is
# read as three, since three are BART's. With three or four labels it holds.
source "$(dirname "$0")/environment.bash"
python=$(environment transformers==5.23.0)
"$python" - <<'PY'
import sys
import tempfile

import transformers
from transformers import BartConfig, BertConfig

print("transformers", transformers.__version__)
loaded = {}
for kind in (BertConfig, BartConfig):
    for labels in (2, 3, 4):
        folder = tempfile.mkdtemp()
        kind(num_labels=labels).save_pretrained(folder)
        loaded[kind.__name__, labels] = kind.from_pretrained(folder).num_labels
        print(f"{kind.__name__}: saved with {labels} labels, loaded with {loaded[kind.__name__, labels]}")
others = all(found == labels for (name, labels), found in loaded.items() if (name, labels) != ("BartConfig", 2))
sys.exit(not (others and loaded["BartConfig", 2] == 3))
PY
