#!/usr/bin/env bash
# Guess: cross_entropy is the same for class indices and for the same labels as one-hot probabilities, with class weights too;
# and label smoothing with class weights is the same in torch as in Trainer.
# Found: indices are divided by the sum of the rows' weights, probabilities by the number of rows: 0.267 and 0.533 for one and
# the same labels. torch's label smoothing weighs each label's smoothed part by that label's weight, and divides by the weights
# of the gold labels; Trainer's LabelSmoother is given no weights at all, so that both kinds of loss differ for the same two
# options.
source "$(dirname "$0")/environment.bash"
python=$(environment torch==2.13.0 transformers==5.23.0 accelerate==1.15.0 peft==0.21.2)
"$python" - <<'PY'
import sys

import torch
import torch.nn.functional as F
import transformers
from transformers.trainer_pt_utils import LabelSmoother

print("torch", torch.__version__, "transformers", transformers.__version__)
logits, labels, weights = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 1]), torch.tensor([1.0, 3.0])
one_hot = F.one_hot(labels).float()
log = logits.log_softmax(-1)
by_hand = -(0.9 * one_hot + 0.05) * log * weights
found = {
    "indices": F.cross_entropy(logits, labels, weight=weights).item(),
    "one-hot": F.cross_entropy(logits, one_hot, weight=weights).item(),
    "smoothed by torch, weighted": F.cross_entropy(logits, labels, weight=weights, label_smoothing=0.1).item(),
    "the same by hand": (by_hand.sum() / weights[labels].sum()).item(),
    "smoothed by torch, one-hot, weighted": F.cross_entropy(logits, one_hot, weight=weights, label_smoothing=0.1).item(),
    "smoothed by Trainer": LabelSmoother(epsilon=0.1)({"logits": logits}, labels).item(),
}
found = {case: round(value, 4) for case, value in found.items()}
for case, value in found.items():
    print(f"{case}: {value}")
expected = {"indices": 0.2667, "one-hot": 0.5334, "smoothed by torch, weighted": 0.3495, "the same by hand": 0.3495,
            "smoothed by torch, one-hot, weighted": 0.699, "smoothed by Trainer": 0.2951}
sys.exit(found != expected)
PY
