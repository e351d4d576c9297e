#!/usr/bin/env bash
# Guess: RemBertTokenizer frames a text with [CLS] and [SEP], as its sibling AlbertTokenizer does from the same vocabulary.
# Found: built from a vocabulary it frames nothing, though it names both tokens: a classifier that reads the first token
# reads a word.
source "$(dirname "$0")/environment.bash"
python=$(environment transformers==5.23.0)
"$python" - <<'PY'
import sys

import transformers
from transformers import AlbertTokenizer, RemBertTokenizer

print("transformers", transformers.__version__)
pieces = ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]", "▁red", "▁kite", "▁"]
tokens = {}
for kind in (AlbertTokenizer, RemBertTokenizer):
    tokenizer = kind(vocab=[(piece, 0.0) for piece in pieces])
    tokens[kind] = tokenizer("red kite").tokens()
    print(f"{kind.__name__} (cls_token {tokenizer.cls_token}): 'red kite' is {tokens[kind]}")
sys.exit(not (tokens[AlbertTokenizer][0] == "[CLS]" and tokens[RemBertTokenizer] == ["▁red", "▁kite"]))
PY
