#!/usr/bin/env bash
# Guess: PreTrainedTokenizerFast is tokenizer.json and nothing else, so that 4.57 and 5.23 read one file alike.
# Found: 4.57 sets the byte-level pre-tokenizer's add_prefix_space to its own default, false, wherever tokenizer_config.json
# does not say it; 5.23 leaves the file as it is. The first word of every text gets other tokens.
source "$(dirname "$0")/environment.bash"
new=$(environment transformers==5.23.0)
old=$(environment transformers==4.57.6)
cat >"$work/save.py" <<'PY'
import json
import sys
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
alphabet = pre_tokenizers.ByteLevel.alphabet()
lines = ["a warm film", "a cold film", "the film is warm"] * 20
tokenizer.train_from_iterator(
    lines, trainers.BpeTrainer(vocab_size=290, special_tokens=["<unk>"], initial_alphabet=alphabet, show_progress=False)
)
folder = Path(sys.argv[1])
folder.mkdir()
tokenizer.save(str(folder / "tokenizer.json"))
settings = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>"}
(folder / "tokenizer_config.json").write_text(json.dumps(settings))
PY
cat >"$work/read.py" <<'PY'
import sys

import transformers
from tokenizers import Tokenizer
from transformers import AutoTokenizer

asked, version = sys.argv[1:]
plain = Tokenizer.from_file(f"{asked}/tokenizer.json").encode("film").tokens
found = AutoTokenizer.from_pretrained(asked).tokenize("film")
print("transformers", transformers.__version__, "the file says", plain, "it gives", found)
sys.exit((found == plain) != version.startswith("5"))
PY
"$new" "$work/save.py" "$work/tokenizer"
"$new" "$work/read.py" "$work/tokenizer" 5.23.0
"$old" "$work/read.py" "$work/tokenizer" 4.57.6
