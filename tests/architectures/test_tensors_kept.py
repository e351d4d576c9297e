"""Of a checkpoint all that has a place in the model is kept: what `from_pretrained` keeps, but for a task head of another
kind. For each architecture, from each form that its checkpoints have, into each head."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import transformers as tf
import zoo
from safetensors.torch import load_file

import bert_ft
from bert_ft.config.schema import RunSpec
from bert_ft.errors import InputError
from bert_ft.modeling import pretrained, weights

FORMS = {
    "bare": tf.MODEL_MAPPING,
    "MaskedLM": tf.MODEL_FOR_MASKED_LM_MAPPING,
    "PreTraining": tf.MODEL_FOR_PRETRAINING_MAPPING,
    "CausalLM": tf.MODEL_FOR_CAUSAL_LM_MAPPING,
    "Seq2SeqLM": tf.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
    "SequenceClassification": tf.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    "TokenClassification": tf.MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING,
    "QuestionAnswering": tf.MODEL_FOR_QUESTION_ANSWERING_MAPPING,
}
HEADS = ("SequenceClassification", "TokenClassification", "QuestionAnswering")
QUICK = ("bert", "modernbert", "splinter", "t5", "deberta-v2", "electra")
NAMES = [name for name in zoo.ZOO if "+" not in name]


def adapter(head: str, config: Any) -> Any:
    """What `load_model` needs of an adapter whose labels are those of a config."""
    names = dict(config.id2label)
    wanted = (
        {"num_labels": 2} if head == "QuestionAnswering" else {"num_labels": len(names), "id2label": names}
    )
    return SimpleNamespace(head=f"AutoModelFor{head}", config=lambda: dict(wanted), names=list(names.values()),
                           labels=list(names.values()), task=bert_ft.load_task("classification"))  # fmt: skip


def survivors(model: Any, file: set[bytes]) -> set[str]:
    """The tensors of a model that are those of the file, byte for byte."""
    return {
        name for name, tensor in model.state_dict().items() if tensor.contiguous().numpy().tobytes() in file
    }


def cells(name: str, folder: Path) -> Iterator[tuple[str, str, Any, set[str], set[str]]]:
    """(form, head, our model, what survives in it, what survives in `from_pretrained`'s); a refusal is looked into."""
    config, _ = zoo.described(name)
    forms = {form: mapping for form, mapping in FORMS.items() if type(config) in mapping}
    if name == "reformer":  # those want a decoder, which is no other weights
        forms.pop("CausalLM", None)
        forms.pop("PreTraining", None)
    for form, mapping in forms.items():
        place = zoo.checkpoint(name, folder / form, mapping)
        file = {tensor.contiguous().numpy().tobytes() for part in place.glob("*.safetensors")
                for tensor in load_file(part).values() if tensor.any()}  # fmt: skip
        for head in HEADS:
            if type(config) not in FORMS[head]:
                continue
            auto = getattr(tf, f"AutoModelFor{head}")
            labels = 2 if head == "QuestionAnswering" else config.num_labels  # BART's default is three
            theirs, info = auto.from_pretrained(
                place, num_labels=labels, ignore_mismatched_sizes=True, output_loading_info=True
            )
            expected = survivors(theirs, file)
            missing = info["missing_keys"] - set(weights.head_names(theirs))
            if any("pooler" not in key for key in missing):  # a token classifier of T5 has no decoder
                with pytest.raises(InputError, match=r"lacks|no place for"):
                    pretrained.load_model(RunSpec(), str(place), adapter(head, config))
                continue
            model, *_ = pretrained.load_model(RunSpec(), str(place), adapter(head, config))
            yield form, head, model, survivors(model, file), expected


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in NAMES
])  # fmt: skip
def test_what_from_pretrained_keeps_is_kept(name: str, tmp_path: Path) -> None:
    tf.logging.set_verbosity_error()
    count = 0
    for form, head, model, kept, expected in cells(name, tmp_path):
        if form in HEADS and form != head:  # a task head of another kind is all new
            expected = expected - set(weights.head_names(model))
        assert kept == expected, (form, head, sorted(kept ^ expected)[:4])
        assert kept, (form, head)
        count += 1
    assert (
        count or name == "perceiver" or not any(type(zoo.described(name)[0]) in FORMS[head] for head in HEADS)
    )


def test_weights_without_a_place_are_refused(tmp_path: Path) -> None:
    """A BERT that was pretrained with relative positions, which transformers 5 no longer computes; one with more layers
    than its config says; a pooler and position ids are told."""
    from safetensors.torch import save_file

    place = zoo.checkpoint("bert", tmp_path / "bert")
    file = next(place.glob("*.safetensors"))
    tensors = load_file(file)
    relative = {
        "encoder.layer.0.attention.self.distance_embedding.weight": tensors["pooler.dense.weight"].clone()
    }
    deeper = {
        name.replace("layer.1.", "layer.2."): tensor.clone()
        for name, tensor in tensors.items()
        if "layer.1." in name
    }
    for more, message in ((relative, "distance_embedding"), (deeper, "encoder.layer.2.")):
        save_file(tensors | more, file, metadata={"format": "pt"})
        with pytest.raises(InputError, match=f"no place for {len(more)} weights.*{message}"):
            pretrained.load_model(RunSpec(), str(place), adapter("SequenceClassification", tf.BertConfig()))
    save_file(tensors, file, metadata={"format": "pt"})
    _, notes, _ = pretrained.load_model(
        RunSpec(), str(place), adapter("TokenClassification", tf.BertConfig())
    )
    assert (
        "weights of the checkpoint that this head does not use: pooler.dense.bias, pooler.dense.weight"
        in notes
    )
    assert [note for note in notes if note.startswith("new weights")] == [
        "new weights, not pretrained: classifier.bias, classifier.weight"
    ]
