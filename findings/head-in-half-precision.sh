#!/usr/bin/env bash
# Guess: a new head over a checkpoint that was saved in float16 is float32, or the training makes it so.
# Found: the head is float16, and so are Adam's averages of it and the weights that are trained. In 4.57.6 the same call gives
# float32.
source "$(dirname "$0")/environment.bash"
cat >"$work/run.py" <<'PY'
import sys

import torch
import transformers
from transformers import BertConfig, BertForSequenceClassification, BertModel, Trainer, TrainingArguments

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
print("transformers", transformers.__version__)
sizes = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
BertModel(BertConfig(**sizes)).half().save_pretrained(f"{sys.argv[1]}/base")
model = BertForSequenceClassification.from_pretrained(f"{sys.argv[1]}/base")
rows = [{"input_ids": [1, 5 + i, 2], "attention_mask": [1, 1, 1], "labels": i % 2} for i in range(8)]
arguments = TrainingArguments(
    f"{sys.argv[1]}/out", max_steps=1, report_to="none", use_cpu=True, save_strategy="no", disable_tqdm=True
)
trainer = Trainer(model, arguments, train_dataset=rows)
trainer.train()
weight = trainer.model.classifier.weight
optimizer = getattr(trainer.optimizer, "optimizer", trainer.optimizer)
found = [weight.dtype, optimizer.state[weight]["exp_avg"].dtype]
print("the new head:", found[0], "Adam's average of it:", found[1])
sys.exit(found != [torch.float16 if transformers.__version__.startswith("5") else torch.float32] * 2)
PY
new=$(environment torch==2.13.0 transformers==5.23.0 accelerate==1.15.0 peft==0.21.2)
old=$(environment torch==2.13.0 transformers==4.57.6 accelerate==1.15.0)
"$new" "$work/run.py" "$work" | grep -v "^{"
"$old" "$work/run.py" "$work" | grep -v "^{"
