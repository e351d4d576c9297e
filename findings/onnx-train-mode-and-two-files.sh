#!/usr/bin/env bash
# Guess: a model that is exported in eval mode is in eval mode afterwards, and one export gives one file.
# Found: torch's older exporter (dynamo=False) gives the wrapper's training flag back to everything inside it: where the wrapper
# never was in eval mode, the model drops out again afterwards, and the check "onnxruntime gives what the model gives" fails for
# a graph that is right. The newer exporter leaves the model alone. It writes two files, and the graph alone does not load.
source "$(dirname "$0")/environment.bash"
python=$(environment torch==2.13.0 transformers==5.23.0 onnx==1.23.2 onnxscript==0.7.2 onnxruntime==1.32.0)
"$python" - "$work" <<'PY'
import os
import shutil
import sys

import numpy as np
import onnxruntime
import torch
import transformers
from transformers import BertConfig, BertForSequenceClassification

print("torch", torch.__version__, "onnxruntime", onnxruntime.__version__, "transformers", transformers.__version__)


class Logits(torch.nn.Module):
    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        return self.model(input_ids=input_ids).logits


sizes = {"vocab_size": 40, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64,
         "initializer_range": 0.5}
tokens = torch.tensor([[1, 5, 6, 2]])
found = {}
for dynamo in (False, True):
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(**sizes)).eval()
    with torch.no_grad():
        before = model(tokens).logits.numpy()
    folder = f"{sys.argv[1]}/{dynamo}"
    os.mkdir(folder)
    torch.onnx.export(Logits(model), (tokens,), f"{folder}/a.onnx", input_names=["input_ids"], dynamo=dynamo, verbose=False)
    graph, = onnxruntime.InferenceSession(f"{folder}/a.onnx").run(None, {"input_ids": tokens.numpy()})
    right = bool(np.allclose(graph, before, atol=1e-5))
    found[dynamo] = [model.training, right, sorted(os.listdir(folder))]
    print(f"dynamo={dynamo}: in train mode afterwards {model.training}, the graph is right {right}, files {found[dynamo][2]}")
os.mkdir(f"{sys.argv[1]}/elsewhere")
shutil.copy(f"{sys.argv[1]}/True/a.onnx", f"{sys.argv[1]}/elsewhere/a.onnx")
try:
    onnxruntime.InferenceSession(f"{sys.argv[1]}/elsewhere/a.onnx")
    alone = "loads"
except Exception as error:
    alone = type(error).__name__
print("a.onnx of dynamo=True alone:", alone)
sys.exit(not (found == {False: [True, True, ["a.onnx"]], True: [False, True, ["a.onnx", "a.onnx.data"]]} and alone == "Fail"))
PY
