#!/usr/bin/env bash
# Guess: transformers 4.57 either understands the rotary positions of a ModernBERT that 5.23 saved, or refuses the folder.
# Found: it loads it without a word and computes with its own defaults. 5 writes the bases into "rope_parameters" and the
# kinds of the layers into "layer_types"; 4.57 looks for "global_rope_theta", "local_rope_theta" and
# "global_attn_every_n_layers", finds none, and takes 160,000, 10,000 and 3. The states of a checkpoint with other bases are
# off, and only those of one with the defaults are right.
source "$(dirname "$0")/environment.bash"
new=$(environment torch==2.13.0 transformers==5.23.0 accelerate==1.15.0 peft==0.21.2)
old=$(environment torch==2.13.0 transformers==4.57.6 accelerate==1.15.0)
cat >"$work/save.py" <<'PY'
import sys

import torch
import transformers
from transformers import ModernBertConfig, ModernBertModel

transformers.logging.disable_progress_bar()
print("saved by transformers", transformers.__version__)
for name, base in (("default", 160_000.0), ("other", 1_000.0)):
    torch.manual_seed(0)
    bases = {"full_attention": {"rope_type": "default", "rope_theta": base},
             "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0}}
    config = ModernBertConfig(vocab_size=100, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=2,
                              pad_token_id=0, bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2,
                              rope_parameters=bases, initializer_range=0.5)
    model = ModernBertModel(config).eval()
    model.save_pretrained(f"{sys.argv[1]}/{name}")
    with torch.no_grad():
        torch.save(model(torch.arange(40)[None] + 5).last_hidden_state, f"{sys.argv[1]}/{name}.pt")
PY
cat >"$work/read.py" <<'PY'
import sys
import warnings

import torch
import transformers
from transformers import AutoModel

print("read by transformers", transformers.__version__)
apart = {}
with warnings.catch_warnings():
    warnings.filterwarnings("error", module="transformers")
    for name in ("default", "other"):
        model = AutoModel.from_pretrained(f"{sys.argv[1]}/{name}", attn_implementation="eager").eval()
        with torch.no_grad():
            states = model(torch.arange(40)[None] + 5).last_hidden_state
        apart[name] = float((states - torch.load(f"{sys.argv[1]}/{name}.pt")).abs().max())
        print(name, "base in use:", model.config.global_rope_theta, "largest difference of a state:", f"{apart[name]:.1e}")
sys.exit(not (apart["default"] < 1e-4 < 1e-2 < apart["other"]))
PY
"$new" "$work/save.py" "$work"
"$old" "$work/read.py" "$work"
