#!/usr/bin/env bash
# Guess: what a model of transformers accepts has an effect: attentions when they are asked for, head_mask, more names than
# labels.
# Found: with the attention that is chosen by default output_attentions=True gives an empty tuple; head_mask of zeros changes no
# bit; and of three names with num_labels=2 none is kept. None of them is an error.
source "$(dirname "$0")/environment.bash"
python=$(environment torch==2.13.0 transformers==5.23.0 accelerate==1.15.0 peft==0.21.2)
"$python" - <<'PY'
import sys

import torch
import transformers
from transformers import BertConfig, BertModel

print("transformers", transformers.__version__)
torch.manual_seed(0)
sizes = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
model = BertModel(BertConfig(**sizes)).eval()
tokens = torch.tensor([[1, 5, 6, 2]])
plain, masked = model(tokens), model(tokens, head_mask=torch.zeros(2, 2))
found = {"attentions": len(model(tokens, output_attentions=True).attentions),
         "head_mask changes the states": not torch.equal(plain.last_hidden_state, masked.last_hidden_state)}  # fmt: skip
model.set_attn_implementation("eager")
found["attentions of the eager implementation"] = len(model(tokens, output_attentions=True).attentions)
config = BertConfig(num_labels=2, id2label={0: "good", 1: "bad", 2: "mixed"})
found["labels and names"] = (config.num_labels, config.id2label)
for case, value in found.items():
    print(f"{case}: {value}")
sys.exit(list(found.values()) != [0, False, 2, (2, {0: "LABEL_0", 1: "LABEL_1"})])
PY
