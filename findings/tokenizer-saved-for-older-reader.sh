#!/usr/bin/env bash
# Guess: 4.57 reads a tokenizer that 5.23 saved, or names what it can't read.
# Found: the class that 5.23 writes for a plain tokenizer.json, TokenizersBackend, is refused by its name. With the class
# renamed to PreTrainedTokenizerFast it is read, but not where the tokenizer has special tokens of its own, which 5.23 writes as
# a list in extra_special_tokens: 4.57 then asks for the protobuf library, which has nothing to do with it.
source "$(dirname "$0")/environment.bash"
cat >"$work/save.py" <<'PY'
import json
import sys
from pathlib import Path

import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

print("saved by transformers", transformers.__version__)
tokenizer = Tokenizer(models.WordPiece({"[PAD]": 0, "[UNK]": 1, "kite": 2, "[user]": 3}, unk_token="[UNK]"))
tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
for name, options in (("plain", {}), ("own", {"extra_special_tokens": ["[user]"]})):
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]", **options)
    fast.save_pretrained(f"{sys.argv[1]}/{name}")
    file = Path(sys.argv[1]) / name / "tokenizer_config.json"
    settings = json.loads(file.read_text())
    print(name, {key: settings.get(key) for key in ("tokenizer_class", "extra_special_tokens")})
    renamed = Path(sys.argv[1]) / f"{name}-renamed"
    fast.save_pretrained(renamed)
    (renamed / "tokenizer_config.json").write_text(json.dumps(settings | {"tokenizer_class": "PreTrainedTokenizerFast"}))
PY
cat >"$work/read.py" <<'PY'
import sys

import transformers
from transformers import AutoTokenizer

print("read by transformers", transformers.__version__)
found = {}
for name in ("plain", "plain-renamed", "own", "own-renamed"):
    try:
        found[name] = AutoTokenizer.from_pretrained(f"{sys.argv[1]}/{name}").tokenize("kite [user]")
    except Exception as error:
        found[name] = type(error).__name__
    print(f"{name}: {found[name]}")
read = ["kite", "[user]"]
new = transformers.__version__.startswith("5")
sys.exit(list(found.values()) != ([read] * 4 if new else ["ValueError", read, "ValueError", "ImportError"]))
PY
new=$(environment transformers==5.23.0)
old=$(environment transformers==4.57.6)
"$new" "$work/save.py" "$work"
"$new" "$work/read.py" "$work"
"$old" "$work/read.py" "$work"
