#!/usr/bin/env bash
# Guess: tokenizer.json is the vocabulary and its rules. How a call pads and truncates is the call's.
# Found: the padding and truncation of the last call before save_pretrained are written into tokenizer.json. AutoTokenizer sets
# them anew in each call, so that one never sees it; tokenizers.Tokenizer.from_file, and any other program that reads the file,
# cuts every text to 5 tokens.
source "$(dirname "$0")/environment.bash"
python=$(environment transformers==5.23.0)
"$python" - "$work/saved" <<'PY'
import sys

import tokenizers
import transformers
from transformers import AutoTokenizer, BertTokenizer

print("transformers", transformers.__version__, "tokenizers", tokenizers.__version__)
text = "kite " * 20
tokenizer = BertTokenizer(vocab={piece: i for i, piece in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "kite"])})
lengths = {}
for call, options in (("no call", None), ("a call with max_length 5", {"truncation": True, "max_length": 5}),
                      ("a call padded to 30", {"padding": "max_length", "max_length": 30})):  # fmt: skip
    if options:
        tokenizer(text, **options)
    tokenizer.save_pretrained(sys.argv[1])
    by_auto = len(AutoTokenizer.from_pretrained(sys.argv[1])(text)["input_ids"])
    by_file = len(tokenizers.Tokenizer.from_file(f"{sys.argv[1]}/tokenizer.json").encode(text).ids)
    lengths[call] = [by_auto, by_file]
    print(f"saved after {call}: AutoTokenizer gives {by_auto} tokens, tokenizers {by_file}")
sys.exit(list(lengths.values()) != [[22, 22], [22, 5], [22, 30]])
PY
