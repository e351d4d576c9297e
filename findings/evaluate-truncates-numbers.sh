#!/usr/bin/env bash
# Guess: a metric of evaluate that declares whole numbers refuses 0.7, or rounds it.
# Found: fractions are cut off before the metric sees them: predictions of 0.7 and 1.2 for 0 and 1 have an accuracy of 1.0.
source "$(dirname "$0")/environment.bash"
python=$(environment datasets==5.2.0 pandas==3.1.1 evaluate==0.4.6 scikit-learn==1.9.1)
"$python" - <<'PY'
import sys

import datasets
import evaluate

print("evaluate", evaluate.__version__, "datasets", datasets.__version__)


class Accuracy(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        whole = {"predictions": datasets.Value("int32"), "references": datasets.Value("int32")}
        return evaluate.MetricInfo(description="", citation="", inputs_description="", features=datasets.Features(whole))

    def _compute(self, predictions: list[int], references: list[int]) -> dict[str, object]:
        right = sum(map(int.__eq__, predictions, references))
        return {"accuracy": right / len(references), "predictions": predictions}


found = Accuracy().compute(predictions=[0.7, 1.2], references=[0, 1])
print("predictions 0.7, 1.2 for 0, 1:", found)
sys.exit(found != {"accuracy": 1.0, "predictions": [0, 1]})
PY
