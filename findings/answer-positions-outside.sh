#!/usr/bin/env bash
# Guess: a question whose answer positions are -1 is left out of the loss, like a label of -100.
# Found: -1 is moved to 0, so that the model learns to answer with [CLS]. Only positions beyond the last token are left out,
# and where no question of a batch is left the loss is NaN.
source "$(dirname "$0")/environment.bash"
python=$(environment torch==2.13.0 transformers==5.23.0 accelerate==1.15.0 peft==0.21.2)
"$python" - <<'PY'
import math
import sys

import torch
import transformers
from transformers import BertConfig, BertForQuestionAnswering

print("transformers", transformers.__version__)
torch.manual_seed(0)
sizes = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
model = BertForQuestionAnswering(BertConfig(**sizes)).eval()
tokens = torch.tensor([[1, 5, 6, 7, 2]])
losses = {place: model(tokens, start_positions=torch.tensor([place]), end_positions=torch.tensor([place])).loss.item()
          for place in (-100, -1, 0, 1, 5, 9)}  # fmt: skip
for place, loss in losses.items():
    print(f"answer at token {place} of 5: loss {loss:.4f}")
same = losses[-100] == losses[-1] == losses[0] != losses[1]
sys.exit(not (same and math.isnan(losses[5]) and math.isnan(losses[9])))
PY
