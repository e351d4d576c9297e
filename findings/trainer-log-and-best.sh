#!/usr/bin/env bash
# Guess: what Trainer logs is what was computed: the mean loss over all labelled tokens, the rate after the step, a loss that is
# no number where no row has a label; and a metric that is NaN first stays the best, since nothing is greater than NaN.
# Found: the evaluation loss is the mean of the batches' means, by rows: batches with 8 and 2 labelled tokens count the same,
# here 2.02 for 0.82. Where no row has a label the logged loss is 0.0. The logged rates are those of the steps that were done: 1,
# .75, .5, .25, and never 0. A NaN is passed over: the best of NaN, 0.5 and 0.6 is 0.6. 4.57.6 is alike.
source "$(dirname "$0")/environment.bash"
cat >"$work/run.py" <<'PY'
import math
import shutil
import sys

import torch
import transformers
from transformers import BertConfig, BertForSequenceClassification, BertForTokenClassification, Trainer, TrainingArguments

transformers.logging.set_verbosity_error()
print("transformers", transformers.__version__)
SIZES = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}


def arguments(**options: object) -> TrainingArguments:
    shutil.rmtree(sys.argv[1], ignore_errors=True)
    common = {"report_to": "none", "use_cpu": True, "save_strategy": "no", "disable_tqdm": True, "logging_steps": 1}
    return TrainingArguments(sys.argv[1], **common | options)


def rows(labels: list[object]) -> list[dict[str, object]]:
    return [{"input_ids": [1, 5, 6, 2], "attention_mask": [1, 1, 1, 1], "labels": label} for label in labels]


found = {}

tagger = BertForTokenClassification(BertConfig(**SIZES))
torch.nn.init.zeros_(tagger.classifier.weight)
tagger.classifier.bias.data = torch.tensor([2.0, -2.0])
tags = [[0, 0, 0, 0]] * 2 + [[1, -100, -100, -100]] * 2
for size in (2, 4):
    trainer = Trainer(tagger, arguments(per_device_eval_batch_size=size), eval_dataset=rows(tags))
    found[f"evaluation loss, batches of {size}"] = round(trainer.evaluate()["eval_loss"], 3)
right, wrong = math.log1p(math.exp(-4)), math.log1p(math.exp(4))
found["mean over labelled tokens"] = round((8 * right + 2 * wrong) / 10, 3)

trainer = Trainer(
    BertForSequenceClassification(BertConfig(**SIZES)), arguments(num_train_epochs=1), train_dataset=rows([-100] * 8)
)
trainer.train()
found["loss without a label"] = trainer.state.log_history[0]["loss"]

schedule = arguments(num_train_epochs=1, per_device_train_batch_size=4, learning_rate=1.0)
trainer = Trainer(BertForSequenceClassification(BertConfig(**SIZES)), schedule, train_dataset=rows([0, 1] * 8))
trainer.train()
found["learning rates"] = [round(entry["learning_rate"], 2) for entry in trainer.state.log_history if "learning_rate" in entry]

scores = iter([float("nan"), 0.5, 0.6])
best = arguments(
    num_train_epochs=3,
    eval_strategy="epoch",
    save_strategy="epoch",
    load_best_model_at_end=True,
    metric_for_best_model="f1",
    per_device_train_batch_size=4,
)
trainer = Trainer(
    BertForSequenceClassification(BertConfig(**SIZES)),
    best,
    train_dataset=rows([0, 1] * 6),
    eval_dataset=rows([0, 1]),
    compute_metrics=lambda _: {"f1": next(scores)},
)
trainer.train()
found["best of NaN, 0.5, 0.6"] = f"{trainer.state.best_metric} at {trainer.state.best_model_checkpoint.rsplit('-')[-1]}"

for question, answer in found.items():
    print(f"{question}: {answer}")
expected = {
    "evaluation loss, batches of 2": 2.018,
    "evaluation loss, batches of 4": 0.818,
    "mean over labelled tokens": 0.818,
    "loss without a label": 0.0,
    "learning rates": [1.0, 0.75, 0.5, 0.25],
    "best of NaN, 0.5, 0.6": "0.6 at 9",
}
sys.exit(found != expected)
PY
new=$(environment torch==2.13.0 transformers==5.23.0 accelerate==1.15.0 peft==0.21.2)
old=$(environment torch==2.13.0 transformers==4.57.6 accelerate==1.15.0)
"$new" "$work/run.py" "$work/out" | grep -v "^{"
"$old" "$work/run.py" "$work/out" | grep -v "^{"
