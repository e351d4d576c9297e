#!/usr/bin/env bash
# Guess: spans from 0 to 5 and from 5 to 9 touch, as Python's slices do, and have nothing in common; and tags of IOBES are read,
# or refused, as a scheme.
# Found: ends are taken as inclusive, so that the two overlap: under ent_type the wrong span is correct, and half of it under
# partial. Of IOBES each letter is on its own: E is read, S is refused, so that a file passes until its first entity of one word.
source "$(dirname "$0")/environment.bash"
python=$(environment seqeval==1.2.2 nervaluate==1.2.1 scikit-learn==1.9.1)
"$python" - <<'PY'
import sys
from importlib.metadata import version

from nervaluate import Evaluator

print("nervaluate", version("nervaluate"))


def scores(gold: object, guess: object, types: list[str], loader: str) -> dict[str, object]:
    return Evaluator([gold], [guess], tags=types, loader=loader).evaluate()["overall"]


span = {"label": "PER"}
touching = scores([span | {"start": 0, "end": 5}], [span | {"start": 5, "end": 9}], ["PER"], "dict")
found = {"touching spans, ent_type": [touching["ent_type"].correct, touching["ent_type"].f1],
         "touching spans, partial": touching["partial"].f1}  # fmt: skip
for tags in (["O", "O", "B-LOC", "E-LOC"], ["S-PER", "O", "B-LOC", "E-LOC"]):
    try:
        found[" ".join(tags)] = f"{scores(tags, tags, ['PER', 'LOC'], 'list')['strict'].possible} entities"
    except Exception as error:
        found[" ".join(tags)] = type(error).__name__
for case, value in found.items():
    print(f"{case}: {value}")
sys.exit(list(found.values()) != [[1, 1.0], 0.5, "1 entities", "ValueError"])
PY
