#!/usr/bin/env bash
# Guess: macro F1, Matthews' correlation and the area under the ROC curve are the same numbers in torchmetrics as in scikit-learn,
# and torchmetrics knows logits from probabilities.
# Found: a class that is neither in the gold labels nor among the predictions counts as F1 0 in scikit-learn (if it is named in
# labels) and is left out by torchmetrics: 0.67 and 1.0 for predictions without an error. With one class alone the correlation
# is 0 and 1, the area NaN and 0. torchmetrics takes scores for logits only if one of them lies outside 0 to 1: the logits 0.4
# and 0.9 are taken for probabilities.
source "$(dirname "$0")/environment.bash"
python=$(environment torch==2.13.0 torchmetrics==1.9.0 scikit-learn==1.9.1)
"$python" - <<'PY'
import sys

import sklearn
import torch
import torchmetrics
import torchmetrics.functional as tm
from sklearn import metrics as sk

print("torchmetrics", torchmetrics.__version__, "scikit-learn", sklearn.__version__)
two, ones = [0, 0, 1, 1], [1, 1, 1]
t = torch.tensor
found = {
    "macro F1, third of 3 classes absent": [
        sk.f1_score(two, two, average="macro", labels=[0, 1, 2]),
        tm.f1_score(t(two), t(two), task="multiclass", num_classes=3, average="macro").item(),
    ],
    "Matthews, one class alone": [sk.matthews_corrcoef(ones, ones), tm.matthews_corrcoef(t(ones), t(ones), task="binary").item()],
    "area under ROC, one class alone": [
        sk.roc_auc_score(ones, [0.1, 0.2, 0.3]), tm.auroc(t([0.1, 0.2, 0.3]), t(ones), task="binary").item()
    ],
}
for case, (by_sklearn, by_torchmetrics) in found.items():
    print(f"{case}: scikit-learn {by_sklearn:.3f}, torchmetrics {by_torchmetrics:.3f}")
logits = [tm.accuracy(t(scores), t(gold), task="binary").item() for scores, gold in (([0.4, 0.9], [1, 1]), ([0.4, -0.1], [1, 0]))]
print("accuracy of the logits 0.4, 0.9 (both yes):", logits[0], "and of 0.4, -0.1 (yes, no):", logits[1])
rounded = [[round(float(value), 3) for value in pair] for pair in found.values()]
sys.exit(str([rounded, logits]) != "[[[0.667, 1.0], [0.0, 1.0], [nan, 0.0]], [0.5, 1.0]]")
PY
