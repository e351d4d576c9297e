#!/usr/bin/env bash
# Guess: a config that is saved with two labels is loaded with two labels.
# Found: for BART two labels are saved as none, since two are the library's general default and are left out, and none is
# read as three, since three are BART's. With three or four labels it holds.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check transformers==5.23.0
cat >"$work/run.py" <<'PY'
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
"$work/venv/bin/python" "$work/run.py" 2>/dev/null
