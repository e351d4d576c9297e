#!/usr/bin/env bash
# Guess: a pipeline answers in eval mode; a text-classification pipeline takes pairs as tuples; return_all_scores=True still gives
# all labels, or is refused; and aggregation leaves a type with a hyphen as it is, and reads IOBES.
# Found: a model that is handed over as an object keeps its mode: one that was built or trained in this process drops out, and
# answers otherwise each time. In a list of one tuple the tuple is a batch of two texts, and the score is that of the first
# alone. return_all_scores goes to the tokenizer, which does not know it, and one label comes back. Of "cell-line" the type is
# "line"; of B-P I-P E-P S-P there are three entities. The question-answering pipeline is gone.
source "$(dirname "$0")/environment.bash"
python=$(environment torch==2.13.0 transformers==5.23.0 accelerate==1.15.0 peft==0.21.2)
"$python" - "$work" <<'PY'
import sys

import torch
import transformers
from transformers import (
    BertConfig, BertForQuestionAnswering, BertForSequenceClassification, BertForTokenClassification, BertTokenizer, pipeline,
)  # fmt: skip

transformers.logging.set_verbosity_error()
print("transformers", transformers.__version__)
pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "a", "b", "c", "d"]
tokenizer = BertTokenizer(vocab={piece: i for i, piece in enumerate(pieces)})
SIZES = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32,
         "initializer_range": 0.5}
torch.manual_seed(0)
classify = pipeline("text-classification", model=BertForSequenceClassification(BertConfig(**SIZES)), tokenizer=tokenizer)
answers = {round(classify("good")[0]["score"], 4) for _ in range(5)}
classify.model.eval()
tuples, = classify([("good", "bad")])
first, = classify(["good"])
pair = classify({"text": "good", "text_pair": "bad"})
found = {
    "a model of this process answers one text alike each time": len(answers) == 1,
    "a tuple has the score of its first text": abs(tuples["score"] - first["score"]) < 1e-5,
    "a dict has another, the pair's": abs(pair["score"] - first["score"]) > 1e-3,
    "labels with return_all_scores=True": len(classify("good", return_all_scores=True)),
    "labels with top_k=None": len(classify("good", top_k=None)),
}


def tagged(labels: list[str], tags: list[int], text: str) -> list[tuple[str, str]]:
    """The entities of a model that gives these labels to the four words."""
    model = BertForTokenClassification(BertConfig(**SIZES, id2label=dict(enumerate(labels))))

    def forward(input_ids: torch.Tensor, **_: object) -> object:
        logits = torch.zeros(1, input_ids.shape[1], len(labels))
        for place, tag in enumerate(tags, 1):
            logits[0, place, tag] = 9.0
        return transformers.modeling_outputs.TokenClassifierOutput(logits=logits)

    model.forward = forward
    tag = pipeline("token-classification", model=model, tokenizer=tokenizer, aggregation_strategy="simple")
    return [(entity["entity_group"], entity["word"]) for entity in tag(text)]


found["type of a token of cell-line"] = tagged(["O", "cell-line"], [1, 0, 0, 0], "a b c d")
found["entities of B-P I-P E-P S-P"] = tagged(["B-P", "I-P", "E-P", "S-P"], [0, 1, 2, 3], "a b c d")
try:
    found["question answering"] = str(pipeline("question-answering", model=BertForQuestionAnswering(BertConfig(**SIZES)),
                                               tokenizer=tokenizer))
except Exception as error:
    found["question answering"] = type(error).__name__
for case, value in found.items():
    print(f"{case}: {value}")
expected = [False, True, True, 1, 2, [("line", "a")], [("P", "a b"), ("P", "c"), ("P", "d")], "KeyError"]
sys.exit(list(found.values()) != expected)
PY
