#!/usr/bin/env bash
# Guess: a BERT with relative positions, which 4.57 trained and saved, is loaded by 5.23 as it was, or refused.
# Found: 5 has no relative positions for BERT any more. The weights of the distances are left out, the states differ, and what
# is told is a table of unexpected weights.
source "$(dirname "$0")/environment.bash"
cat >"$work/run.py" <<'PY'
import sys

import torch
import transformers
from transformers import BertConfig, BertModel

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
print("transformers", transformers.__version__)
tokens = torch.tensor([[1, 5, 6, 2]])
if sys.argv[1] == "save":
    torch.manual_seed(0)
    sizes = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(**sizes, position_embedding_type="relative_key", initializer_range=0.5)).save_pretrained(sys.argv[2])
model = BertModel.from_pretrained(sys.argv[2], attn_implementation="eager").eval()
with torch.no_grad():
    states = model(tokens).last_hidden_state
if sys.argv[1] == "save":
    torch.save(states, f"{sys.argv[2]}/states.pt")
    sys.exit(0)
apart = float((states - torch.load(f"{sys.argv[2]}/states.pt")).abs().max())
print("the config still says", model.config.position_embedding_type, "- the largest difference of a state is", round(apart, 3))
sys.exit(apart < 0.1)
PY
new=$(environment torch==2.13.0 transformers==5.23.0 accelerate==1.15.0 peft==0.21.2)
old=$(environment torch==2.13.0 transformers==4.57.6 accelerate==1.15.0)
"$old" "$work/run.py" save "$work/model"
"$new" "$work/run.py" read "$work/model"
