#!/usr/bin/env bash
# Guess: 2 rows a device times 4 accumulated steps is a batch of 8, so that Trainer logs the loss of a batch of 8.
# Found: in 5.23 the logged loss and the gradient norm of a classifier are 4 times as large: Trainer takes any forward with
# **kwargs for one that divides by the labels of the whole batch, every encoder has **kwargs since 5, and nobody divides. With
# label smoothing Trainer computes the loss itself, divides, and the ratio is 1. In 4.57.6 it is 1 in both.
source "$(dirname "$0")/environment.bash"
cat >"$work/run.py" <<'PY'
import sys

import torch
import transformers
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

transformers.logging.set_verbosity_error()
print("transformers", transformers.__version__)
rows = [{"input_ids": [1, 5 + i, 2], "attention_mask": [1, 1, 1], "labels": i % 2} for i in range(8)]
SIZES = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}


def first_step(batch: int, accumulated: int, smoothing: float) -> dict[str, float]:
    torch.manual_seed(0)
    arguments = TrainingArguments(
        sys.argv[1],
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulated,
        max_steps=1,
        logging_steps=1,
        max_grad_norm=1e9,
        label_smoothing_factor=smoothing,
        report_to="none",
        use_cpu=True,
        save_strategy="no",
        disable_tqdm=True,
    )
    trainer = Trainer(BertForSequenceClassification(BertConfig(**SIZES)), arguments, train_dataset=rows)
    trainer.train()
    return trainer.state.log_history[0]


found = {}
for smoothing in (0.0, 0.1):
    whole, parts = first_step(8, 1, smoothing), first_step(2, 4, smoothing)
    for key in ("loss", "grad_norm"):
        found[smoothing, key] = round(float(parts[key]) / float(whole[key]), 2)
        print(f"label smoothing {smoothing}: {key} is {found[smoothing, key]} times that of one batch of 8")
ratio = 4.0 if transformers.__version__.startswith("5") else 1.0
sys.exit(found != {(0.0, "loss"): ratio, (0.0, "grad_norm"): ratio, (0.1, "loss"): 1.0, (0.1, "grad_norm"): 1.0})
PY
new=$(environment torch==2.13.0 transformers==5.23.0 accelerate==1.15.0 peft==0.21.2)
old=$(environment torch==2.13.0 transformers==4.57.6 accelerate==1.15.0)
"$new" "$work/run.py" "$work/out" | grep -v "^{"
"$old" "$work/run.py" "$work/out" | grep -v "^{"
