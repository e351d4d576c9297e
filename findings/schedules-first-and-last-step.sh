#!/usr/bin/env bash
# Guess: a warmup begins at 0, or above it, in all schedules of one library, and where a least rate is given it is that of the
# last step.
# Found: of 10 warmup steps the first has the multiplier 0 in most schedules, so that the first step of a training does nothing,
# but 0.1 in cosine_warmup_with_min_lr, and in warmup_stable_decay what min_lr_ratio says, which is named after the end of the
# schedule. Of 100 steps the last of cosine_with_min_lr is at 0.1003 and of warmup_stable_decay at 0.1055, above the least rate
# of 0.1; that of cosine_warmup_with_min_lr is just there.
source "$(dirname "$0")/environment.bash"
python=$(environment torch==2.13.0 transformers==5.23.0 accelerate==1.15.0 peft==0.21.2)
"$python" - <<'PY'
import sys

import torch
import transformers
from transformers import get_scheduler

print("transformers", transformers.__version__)
KINDS = {
    "linear": {},
    "cosine": {},
    "cosine_with_min_lr": {"min_lr_rate": 0.1},
    "cosine_warmup_with_min_lr": {"min_lr_rate": 0.1},
    "warmup_stable_decay": {"num_decay_steps": 20},
    "warmup_stable_decay, min_lr_ratio 0.1": {"num_decay_steps": 20, "min_lr_ratio": 0.1},
}
found = {}
for kind, options in KINDS.items():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = get_scheduler(kind.split(",")[0], optimizer, 10, 100, scheduler_specific_kwargs=options)
    rates = []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    found[kind] = [round(rates[0], 4), round(rates[-1], 4)]
    print(f"{kind}: first step {found[kind][0]}, last step {found[kind][1]}")
expected = {"linear": [0.0, 0.0111], "cosine": [0.0, 0.0003], "cosine_with_min_lr": [0.0, 0.1003],
            "cosine_warmup_with_min_lr": [0.1, 0.1], "warmup_stable_decay": [0.0, 0.0062],
            "warmup_stable_decay, min_lr_ratio 0.1": [0.1, 0.1055]}
sys.exit(found != expected)
PY
