#!/usr/bin/env bash
# Guess: `Trainer(bf16=True)` keeps what a model gives in float32, as it says of the loss, so that regression learns numbers as
# well as in float32: 2,009 for one kind of row and 2,011 for another, from a head that begins at their mean.
# Found: autocast computes the head's last layer in bfloat16, too, which has 8 bits: every number between 1,024 and 2,048 is a
# multiple of 8 there. What `Trainer` turns into float32 afterwards has been rounded. In float32 the error falls to a fifth of a
# year; in bfloat16 every answer stays 2,008, and so do those of evaluation.
source "$(dirname "$0")/environment.bash"
python=$(environment torch==2.13.0 transformers==5.23.0 accelerate==1.15.0)
"$python" - <<'PY'
import sys
import tempfile

import torch
import transformers
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments, set_seed

transformers.logging.disable_progress_bar()
print("torch", torch.__version__, "transformers", transformers.__version__)
KINDS = ((5, 2009.0), (6, 2011.0))
rows = [
    {"input_ids": [2, kind, 7 + i % 9, 3], "attention_mask": [1] * 4, "labels": year}
    for i in range(64)
    for kind, year in KINDS
]


def trained(bf16: bool) -> tuple[float, set[float]]:
    """The root mean squared error on the rows that were learned, and all answers, to a tenth."""
    set_seed(0)
    config = BertConfig(
        vocab_size=30, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        num_labels=1, problem_type="regression", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    model = BertForSequenceClassification(config)
    torch.nn.init.constant_(model.classifier.bias, 2010.0)
    arguments = TrainingArguments(
        output_dir=tempfile.mkdtemp(), num_train_epochs=10, per_device_train_batch_size=16, learning_rate=1e-3, bf16=bf16,
        use_cpu=True, report_to=[], save_strategy="no", logging_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    trainer = Trainer(model, arguments, train_dataset=rows)
    trainer.train()
    found = trainer.predict(rows)
    answers, years = found.predictions.ravel(), found.label_ids.ravel()
    print(f"bf16={bf16}: predictions are {found.predictions.dtype}")
    return float(((answers - years) ** 2).mean() ** 0.5), {round(float(answer), 1) for answer in answers}


exact, rounded = trained(False), trained(True)
print(f"float32: error {exact[0]:.3f} years, answers {sorted(exact[1])[:6]}")
print(f"bf16: error {rounded[0]:.3f} years, answers {sorted(rounded[1])[:6]}")
sys.exit(not (exact[0] < 0.5 and rounded[0] > 2 and rounded[1] == {2008.0}))
PY
