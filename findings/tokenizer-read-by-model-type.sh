#!/usr/bin/env bash
# Guess: AutoTokenizer reads tokenizer.json as it is, or refuses it.
# Found: 5.23 chooses a class by the model type of config.json and builds the tokenizer from the vocabulary. A WordPiece file
# beside a RoBERTa config gives other tokens without an error, where 4.57.6 gives the file's. Where tokenizer_config.json does not
# name do_lower_case, a cased file beside a BERT config is lower-cased, accents and all, in both.
source "$(dirname "$0")/environment.bash"
cat >"$work/save.py" <<'PY'
import json
import sys
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "Zoë", "zoe", "<s>", "</s>", "<pad>", "<unk>", "<mask>"]
tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
for kind in ("bert", "roberta"):
    folder = Path(sys.argv[1]) / kind
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(json.dumps({"model_type": kind, "vocab_size": len(words)}))
PY
cat >"$work/read.py" <<'PY'
import sys

import transformers
from tokenizers import Tokenizer
from transformers import AutoTokenizer

print("transformers", transformers.__version__)
found = {}
for kind in ("bert", "roberta"):
    asked = Tokenizer.from_file(f"{sys.argv[1]}/{kind}/tokenizer.json").encode("Zoë").tokens
    found[kind] = AutoTokenizer.from_pretrained(f"{sys.argv[1]}/{kind}")("Zoë").tokens()
    print(f"{kind}: the file says {asked}, AutoTokenizer gives {found[kind]}")
file = ["[CLS]", "Zoë", "[SEP]"]
sys.exit(found["bert"] != ["[CLS]", "zoe", "[SEP]"] or (found["roberta"] == file) == transformers.__version__.startswith("5"))
PY
new=$(environment transformers==5.23.0)
old=$(environment transformers==4.57.6)
"$new" "$work/save.py" "$work"
"$new" "$work/read.py" "$work"
"$old" "$work/read.py" "$work"
