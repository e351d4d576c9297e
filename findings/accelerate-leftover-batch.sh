#!/usr/bin/env bash
# Guess: with gradient_accumulation_steps=2 and five batches, the fifth stands alone, so that its gradient is its own.
# Found: it is divided by 2 all the same. The optimizer and the schedule step three times; the last step is half as long.
source "$(dirname "$0")/environment.bash"
python=$(environment torch==2.13.0 transformers==5.23.0 accelerate==1.15.0 peft==0.21.2)
"$python" - <<'PY'
import sys

import accelerate
import torch
from accelerate import Accelerator

print("accelerate", accelerate.__version__)
accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
model = torch.nn.Linear(1, 1, bias=False)
torch.nn.init.ones_(model.weight)
optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (step + 1))
data = torch.utils.data.DataLoader(torch.arange(5.0)[:, None], batch_size=1)
model, optimizer, schedule, data = accelerator.prepare(model, optimizer, schedule, data)
weights = [1.0]
for batch in data:
    with accelerator.accumulate(model):
        accelerator.backward(model(batch).mean())
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    weights.append(round(model.weight.item(), 3))
steps = [round(before - after, 3) for before, after in zip(weights, weights[1:], strict=False)]
print("the weight falls by", steps, "and the rate is then", schedule.get_last_lr()[0])
print("the last batch is x = 4 at a rate of 1/3: by its own gradient it would fall by 1.333")
sys.exit((steps, schedule.get_last_lr()[0]) != ([0.0, 0.5, 0.0, 1.25, 0.667], 0.25))
PY
