#!/usr/bin/env bash
# Guess: LoRA for sequence classification (task_type SEQ_CLS) trains and saves the new head, so that the adapter over the same
# base gives the logits that were saved, whatever the architecture.
# Found: it trains and saves modules whose name ends in "classifier" or "score". For BERT that is all. DeBERTa-v2's new pooler is
# neither trained nor saved, XLNet's whole head neither: loaded again the logits differ, without an error. DistilBERT's
# pre_classifier is saved, since its name ends so. The names are added to the caller's config at every use. In a bfloat16 model
# LoRA's weights are float32 and the head is bfloat16. After merge_and_unload only the head has gradients. ModernBERT has no
# default targets.
source "$(dirname "$0")/environment.bash"
python=$(environment torch==2.13.0 transformers==5.23.0 accelerate==1.15.0 peft==0.21.2)
"$python" - "$work" <<'PY'
import sys

import peft
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    AutoModelForSequenceClassification, BertConfig, BertForSequenceClassification, BertModel, DebertaV2Config, DebertaV2Model,
    DistilBertConfig, DistilBertModel, ModernBertConfig, ModernBertForSequenceClassification, XLNetConfig, XLNetModel,
)  # fmt: skip

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
print("peft", peft.__version__, "transformers", transformers.__version__)
SIZES = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
XLNET = {"vocab_size": 40, "d_model": 16, "n_layer": 1, "n_head": 2, "d_inner": 32}
DISTILBERT = {"vocab_size": 40, "dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 32}
BASES = {"bert": (BertModel(BertConfig(**SIZES)), "query"),
         "distilbert": (DistilBertModel(DistilBertConfig(**DISTILBERT)), "q_lin"),
         "deberta-v2": (DebertaV2Model(DebertaV2Config(**SIZES)), "query_proj"),
         "xlnet": (XLNetModel(XLNetConfig(**XLNET)), "layer_1")}  # fmt: skip
tokens = torch.tensor([[5, 6, 7, 8]])
found = {}
for name, (base, target) in BASES.items():
    base.save_pretrained(f"{sys.argv[1]}/{name}")
    logits = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        model = AutoModelForSequenceClassification.from_pretrained(f"{sys.argv[1]}/{name}").eval()
        if seed:
            model = PeftModel.from_pretrained(model, f"{sys.argv[1]}/{name}-adapter").eval()
        else:
            model = get_peft_model(model, LoraConfig(task_type="SEQ_CLS", target_modules=[target])).eval()
            model.save_pretrained(f"{sys.argv[1]}/{name}-adapter")
            trained = [n for n, p in model.named_parameters() if p.requires_grad and "lora" not in n and n.endswith("weight")]
            trained = [n.removeprefix("base_model.model.").replace(".modules_to_save.default", "") for n in trained]
        with torch.no_grad():
            logits.append(model(tokens).logits)
    found[name] = (trained, torch.allclose(*logits))
    print(f"{name}: beside LoRA trained: {trained}, loaded again the logits are the same: {found[name][1]}")

config = LoraConfig(task_type="SEQ_CLS", target_modules=["query"])
half = get_peft_model(BertForSequenceClassification(BertConfig(**SIZES)).bfloat16(), config)
dtypes = {n.split(".")[-3 if "lora" in n else -4]: str(p.dtype) for n, p in half.named_parameters() if p.requires_grad}
merged = get_peft_model(BertForSequenceClassification(BertConfig(**SIZES)), config).merge_and_unload()
found["types in a bfloat16 model"] = dtypes
found["names in the config after two uses"] = config.modules_to_save
found["gradients after merging"] = [name for name, p in merged.named_parameters() if p.requires_grad]
try:
    tiny = ModernBertConfig(**SIZES, pad_token_id=0, bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2)
    found["ModernBERT without target_modules"] = get_peft_model(
        ModernBertForSequenceClassification(tiny), LoraConfig(task_type="SEQ_CLS")
    )
except Exception as error:
    found["ModernBERT without target_modules"] = type(error).__name__
for case, value in list(found.items())[4:]:
    print(f"{case}: {value}")
expected = {
    "bert": (["classifier.weight"], True),
    "distilbert": (["pre_classifier.weight", "classifier.weight"], True),
    "deberta-v2": (["classifier.weight"], False),
    "xlnet": ([], False),
    "types in a bfloat16 model": {"lora_A": "torch.float32", "lora_B": "torch.float32", "classifier": "torch.bfloat16"},
    "names in the config after two uses": ["classifier", "score"] * 2,
    "gradients after merging": ["classifier.weight", "classifier.bias"],
    "ModernBERT without target_modules": "ValueError",
}
sys.exit(found != expected)
PY
