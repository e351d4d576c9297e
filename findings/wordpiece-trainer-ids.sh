#!/usr/bin/env bash
# Guess: a WordPieceTrainer has no randomness, so that the same texts give the same vocabulary.
# Found: the same pieces, numbered otherwise each time, in one process and without any seed to set. A model saved beside
# one training's tokenizer is useless with the tokenizer of the next.
source "$(dirname "$0")/environment.bash"
python=$(environment tokenizers==0.23.3)
"$python" - <<'PY'
import sys

import tokenizers
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

WORDS = "lower newest widest slowest power flower tower shower plower mower grower sower rower lowest wisest nicest".split()
LINES = [" ".join(WORDS[i % len(WORDS) :]) for i in range(200)]


def vocabulary(kind):
    model, trainer = {
        "WordPiece": (models.WordPiece(unk_token="[UNK]"), trainers.WordPieceTrainer),
        "BPE": (models.BPE(unk_token="[UNK]"), trainers.BpeTrainer),
    }[kind]
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.train_from_iterator(LINES, trainer(vocab_size=60, special_tokens=["[UNK]"], show_progress=False))
    return tokenizer.get_vocab()


print("tokenizers", tokenizers.__version__)
numbered = {}
for kind in ("WordPiece", "BPE"):
    runs = [vocabulary(kind) for _ in range(6)]
    pieces = len({tuple(sorted(run)) for run in runs})
    numbered[kind] = len({tuple(sorted(run.items())) for run in runs})
    print(f"{kind}: 6 trainings on the same lines: {pieces} set(s) of pieces, {numbered[kind]} numbering(s)")
sys.exit(not (numbered["WordPiece"] > 1 and numbered["BPE"] == 1))
PY
