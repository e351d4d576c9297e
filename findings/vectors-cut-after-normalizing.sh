#!/usr/bin/env bash
# Guess: a folder whose last module is Normalize gives vectors of length 1, with truncate_dim, too.
# Found: the dimensions are cut off after Normalize, and the vectors are shorter than 1: their dot products are no cosines.
# normalize_embeddings=True normalizes once more, after the cut.
source "$(dirname "$0")/environment.bash"
python=$(environment torch==2.13.0 transformers==5.23.0 sentence-transformers==6.2.0)
"$python" - "$work" <<'PY'
import sys

import numpy as np
import sentence_transformers
import torch
import transformers
from sentence_transformers import SentenceTransformer, models
from transformers import BertConfig, BertModel, BertTokenizer

transformers.logging.set_verbosity_error()
print("sentence-transformers", sentence_transformers.__version__, "transformers", transformers.__version__)
torch.manual_seed(0)
pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "kite", "blue", "pond"]
sizes = {"vocab_size": 9, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
BertModel(BertConfig(**sizes)).save_pretrained(sys.argv[1])
BertTokenizer(vocab={piece: i for i, piece in enumerate(pieces)}).save_pretrained(sys.argv[1])
encoder = models.Transformer(sys.argv[1])
modules = [encoder, models.Pooling(16), models.Normalize()]
found = {}
for name, options in (("whole", {}), ("truncate_dim=8", {"truncate_dim": 8}),
                      ("truncate_dim=8, normalize_embeddings", {"truncate_dim": 8, "normalize_embeddings": True})):  # fmt: skip
    vectors = SentenceTransformer(modules=modules, device="cpu").encode(["red kite", "blue pond"], **options)
    found[name] = np.linalg.norm(vectors, axis=1).round(3).tolist()
    print(f"{name}: {vectors.shape[1]} dimensions, lengths {found[name]}")
one = [1.0, 1.0]
sys.exit(not (found["whole"] == found["truncate_dim=8, normalize_embeddings"] == one and max(found["truncate_dim=8"]) < 0.95))
PY
