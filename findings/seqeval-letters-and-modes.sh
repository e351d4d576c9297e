#!/usr/bin/env bash
# Guess: seqeval refuses tags without a prefix, scheme=IOB2 makes it strict, and its default mode reads whatever conlleval reads.
# Found: the first letter of PER is taken for a prefix, and the type is ER: types that differ in it alone are one. scheme= without
# mode="strict" changes nothing: I-PER I-PER for B-PER I-PER is 1.0, and 0.0 in strict mode.
source "$(dirname "$0")/environment.bash"
python=$(environment seqeval==1.2.2 nervaluate==1.2.1 scikit-learn==1.9.1)
"$python" - <<'PY' 2>/dev/null
import sys
from importlib.metadata import version

from seqeval.metrics import f1_score
from seqeval.metrics.sequence_labeling import get_entities
from seqeval.scheme import IOB2

print("seqeval", version("seqeval"))
gold, guess = [["B-PER", "I-PER"]], [["I-PER", "I-PER"]]
found = {
    "entities of PER PER O LOC": get_entities(["PER", "PER", "O", "LOC"]),
    "F1 of TIME for LIME": f1_score([["TIME"]], [["LIME"]]),
    "F1 of I-PER I-PER, default": f1_score(gold, guess),
    "with scheme=IOB2": f1_score(gold, guess, scheme=IOB2),
    'with mode="strict" too': f1_score(gold, guess, mode="strict", scheme=IOB2),
    "entities of B-PER E-PER E-PER": get_entities(["B-PER", "E-PER", "E-PER"]),
    "entities of E-PER B-PER": get_entities(["E-PER", "B-PER"]),
    "entities of S-PER S-PER": get_entities(["S-PER", "S-PER"]),
}
for case, value in found.items():
    print(f"{case}: {value}")
expected = {}
sys.exit(found != expected)
PY
