#!/usr/bin/env bash
# Guess: a layer that is stacked on a BERT as a deep copy of its last one is a layer like the others: after
# set_attn_implementation("eager") the model returns the attentions of all three.
# Found: the copy has a copy of the config, too, which set_attn_implementation does not reach. It stays with sdpa, and
# output_attentions returns two matrices for three layers: what stands last is the second layer's. The logits are right. The
# model saved and loaded again has one config, and returns three.
source "$(dirname "$0")/environment.bash"
python=$(environment torch==2.13.0 transformers==5.23.0 accelerate==1.15.0 peft==0.21.2)
"$python" - "$work/model" <<'PY'
import copy
import sys

import torch
import transformers
from transformers import BertConfig, BertModel

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
print("transformers", transformers.__version__)
torch.manual_seed(0)
model = BertModel(BertConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, vocab_size=100))
model.eval()
layers = model.encoder.layer
layers.append(copy.deepcopy(layers[-1]))
model.config.num_hidden_layers = 3
tokens = torch.tensor([[5, 6, 7, 8]])
model.set_attn_implementation("eager")
stacked = model(tokens, output_attentions=True, output_hidden_states=True)
model.save_pretrained(sys.argv[1])
again = BertModel.from_pretrained(sys.argv[1], attn_implementation="eager").eval()
loaded = again(tokens, output_attentions=True)
print("configs shared:", [layer.attention.self.config is model.config for layer in layers])
print("attention:", [layer.attention.self.config._attn_implementation for layer in layers])
print("hidden states", len(stacked.hidden_states), "attentions", len(stacked.attentions))
print("loaded again: attentions", len(loaded.attentions))
same = torch.allclose(stacked.last_hidden_state, loaded.last_hidden_state, atol=1e-6)
last_is_second = torch.allclose(stacked.attentions[-1], loaded.attentions[1], atol=1e-6)
print("same states", same, "the last matrix is the second layer's", last_is_second)
assert [len(stacked.hidden_states), len(stacked.attentions), len(loaded.attentions)] == [4, 2, 3]
assert same and last_is_second
PY
