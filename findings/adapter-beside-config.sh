#!/usr/bin/env bash
# Guess: the folder of a LoRA adapter of a three-label classifier loads with AutoModelForSequenceClassification, and writing
# the classifier's config.json beside it, which has the three labels, can only help.
# Found: without config.json the labels are those of the base's config, so that loading needs num_labels=3 and then gives the
# logits that were saved; with config.json the folder is no longer taken for an adapter, and is refused for want of
# model.safetensors. (peft's own PeftModel.from_pretrained reads both.)
source "$(dirname "$0")/environment.bash"
python=$(environment torch==2.13.0 transformers==5.23.0 accelerate==1.15.0 peft==0.21.2)
"$python" - "$work" <<'PY'
import sys
from pathlib import Path

import peft
import torch
import transformers
from transformers import AutoModelForSequenceClassification as Auto
from transformers import BertConfig, BertForSequenceClassification, BertModel

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
print("transformers", transformers.__version__, "peft", peft.__version__)
here = Path(sys.argv[1])
base, adapter = str(here / "base"), str(here / "adapter")
torch.manual_seed(0)
sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 50}
BertModel(BertConfig(**sizes)).save_pretrained(base)
classifier = BertForSequenceClassification.from_pretrained(base, num_labels=3)
lora = peft.LoraConfig(task_type="SEQ_CLS", target_modules=["query"], init_lora_weights=False)
trained = peft.get_peft_model(classifier, lora).eval()
trained.save_pretrained(adapter)
tokens = torch.tensor([[1, 2, 3]])
expected = trained(tokens).logits


def loaded(**options: int) -> str:
    try:
        logits = Auto.from_pretrained(adapter, **options).eval()(tokens).logits
    except Exception as error:
        return type(error).__name__
    return "the same logits" if logits.shape == expected.shape and torch.allclose(logits, expected) else "other logits"


results = {"adapter alone": loaded(), "adapter alone, num_labels=3": loaded(num_labels=3)}
classifier.config.save_pretrained(adapter)
results["with config.json"] = loaded()
results["with config.json, num_labels=3"] = loaded(num_labels=3)
again = peft.PeftModel.from_pretrained(BertForSequenceClassification.from_pretrained(base, num_labels=3), adapter).eval()
results["with config.json, by peft"] = "the same logits" if torch.allclose(again(tokens).logits, expected) else "other logits"
for case, found in results.items():
    print(f"{case:>32}: {found}")
sys.exit(
    list(results.values()) != ["RuntimeError", "the same logits", "OSError", "OSError", "the same logits"]
)
PY
