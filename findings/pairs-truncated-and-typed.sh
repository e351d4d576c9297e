#!/usr/bin/env bash
# Guess: two texts of 6 words in 9 places leave 5 and 4; and the tokenizer of a model that was pretrained on pairs with token
# types gives token types.
# Found: of two equally long texts the first gives one more: 4 and 5; of 20 and 4 words 5 and 4 are left. ALBERT's, BigBird's,
# RemBERT's, XLNet's and Funnel's tokenizers return no token_type_ids for a pair unless asked: without them both texts are of
# the first type, and the model answers something else, without an error.
source "$(dirname "$0")/environment.bash"
python=$(environment torch==2.13.0 transformers==5.23.0 accelerate==1.15.0 peft==0.21.2)
"$python" - <<'PY'
import sys

import torch
import transformers
from transformers import (
    AlbertConfig, AlbertModel, AlbertTokenizer, BertTokenizer, BigBirdTokenizer, FunnelTokenizer, RemBertTokenizer,
    XLNetTokenizer,
)  # fmt: skip

print("transformers", transformers.__version__)
pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b"]
bert = BertTokenizer(vocab={piece: i for i, piece in enumerate(pieces)})
left = {}
for first, second in ((6, 6), (20, 4)):
    kinds = bert("a " * first, "b " * second, truncation=True, max_length=12)["input_ids"]
    left[first, second] = [kinds.count(5), kinds.count(6)]
    print(f"{first} and {second} words in 9 places: {left[first, second]} are left")

unigram = [
    ("<pad>", 0.0),
    ("<unk>", 0.0),
    ("[CLS]", 0.0),
    ("[SEP]", 0.0),
    ("[MASK]", 0.0),
    ("▁a", 0.0),
    ("▁b", 0.0),
    ("▁", 0.0),
]
given = {"BERT": "token_type_ids" in bert("a", "b")}
for kind in (AlbertTokenizer, BigBirdTokenizer, RemBertTokenizer, XLNetTokenizer):
    given[kind.__name__.removesuffix("Tokenizer")] = "token_type_ids" in kind(vocab=unigram)("a", "b")
funnel = ["<pad>", "<unk>", "<cls>", "<sep>", "<mask>", "a", "b"]
given["Funnel"] = "token_type_ids" in FunnelTokenizer(vocab={piece: i for i, piece in enumerate(funnel)})("a", "b")
for model, has in given.items():
    print(f"{model}: a pair has token types: {has}")

albert = AlbertTokenizer(vocab=unigram)
torch.manual_seed(0)
model = AlbertModel(
    AlbertConfig(
        vocab_size=8,
        embedding_size=16,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        initializer_range=0.5,
    )
).eval()
with torch.no_grad():
    plain, typed = (model(**albert("a", "b", return_tensors="pt", **options)).last_hidden_state
                    for options in ({}, {"return_token_type_ids": True}))  # fmt: skip
apart = float((plain - typed).abs().max())
print(f"ALBERT with random weights: a state differs by {apart:.2f} if they are asked for")
missing = {"Albert", "BigBird", "RemBert", "XLNet", "Funnel"}
sys.exit(
    not (left == {(6, 6): [4, 5], (20, 4): [5, 4]} and {m for m, has in given.items() if not has} == missing and apart > 0.01)
)
PY
