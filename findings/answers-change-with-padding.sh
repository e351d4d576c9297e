#!/usr/bin/env bash
# Guess: with its attention mask a row has the same states in a batch as alone, whatever padding stands behind it.
# Found: so it is for BERT, but not for FNet (its Fourier transform runs over the padding), Funnel (it pools it), ConvBERT and
# Nystromformer (they convolve over it), YOSO (its mask does nothing on a CPU) and MobileBERT (the last word reads the embedding
# of the token behind it). BigBird turns to full attention at the first batch that is short, and stays there for longer ones. In
# MRA no token reads another one where there is no GPU.
source "$(dirname "$0")/environment.bash"
python=$(environment torch==2.13.0 transformers==5.23.0 accelerate==1.15.0 peft==0.21.2)
"$python" - <<'PY'
import sys

import torch
import transformers
from transformers import (
    BertConfig, BertModel, BigBirdConfig, BigBirdModel, ConvBertConfig, ConvBertModel, FNetConfig, FNetModel, FunnelConfig,
    FunnelModel, MobileBertConfig, MobileBertModel, MraConfig, MraModel, NystromformerConfig,
    NystromformerModel, YosoConfig, YosoModel,
)  # fmt: skip

transformers.logging.set_verbosity_error()
print("transformers", transformers.__version__)
SIZES = {
    "vocab_size": 40,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "initializer_range": 0.5,
    "pad_token_id": 0,
}
FUNNEL = {
    "vocab_size": 40,
    "block_sizes": [1, 1],
    "d_model": 32,
    "n_head": 4,
    "d_head": 8,
    "d_inner": 64,
    "initializer_std": 0.5,
}
FNET = {key: value for key, value in SIZES.items() if key != "num_attention_heads"}
MODELS = {
    "BERT": lambda: BertModel(BertConfig(**SIZES)),
    "FNet": lambda: FNetModel(FNetConfig(**FNET)),
    "Funnel": lambda: FunnelModel(FunnelConfig(**FUNNEL)),
    "ConvBERT": lambda: ConvBertModel(ConvBertConfig(**SIZES, embedding_size=32)),
    "Nystromformer": lambda: NystromformerModel(NystromformerConfig(**SIZES, num_landmarks=64, segment_means_seq_len=64)),
    "YOSO": lambda: YosoModel(YosoConfig(**SIZES, use_expectation=True)),
    "MobileBERT": lambda: MobileBertModel(
        MobileBertConfig(**SIZES | {"initializer_range": 0.1}, embedding_size=32, true_hidden_size=32, intra_bottleneck_size=32)
    ),
}
row = torch.tensor([[1, 5, 6, 7, 8, 9, 10, 2]])
apart = {}
for name, make in MODELS.items():
    torch.manual_seed(0)
    model = make().eval()
    with torch.no_grad():
        model.get_input_embeddings().weight.normal_()  # that of the padding is zero in a new model, but in no pretrained one
        states = []
        for padding in (0, 16):
            tokens = torch.nn.functional.pad(row, (0, padding))
            states.append(model(tokens, attention_mask=(tokens > 0).long()).last_hidden_state[0, :8])
    apart[name] = float((states[0] - states[1]).abs().max())
    print(f"{name}: a state differs by {apart[name]:.1e} between a row alone and with 16 tokens of padding")

torch.manual_seed(0)
bird = BigBirdModel(
    BigBirdConfig(**SIZES, block_size=4, num_random_blocks=1, attention_type="block_sparse", max_position_embeddings=64)
)
bird.eval()
long = torch.randint(5, 40, (1, 64))
with torch.no_grad():
    first = bird(long).last_hidden_state
    bird(long[:, :8])
    second = bird(long).last_hidden_state
kept = bird.config.attention_type
changed = float((first - second).abs().max())
print(
    f"BigBird: a long row differs by {changed:.1e} after a short one; its config says {kept}, in use is {bird.attention_type}"
)

mra = MraModel(MraConfig(**SIZES, max_position_embeddings=128, block_per_row=1)).eval()
other = long.clone()
other[0, 40] = 5 if long[0, 40] != 5 else 6
with torch.no_grad():
    reached = (mra(long).last_hidden_state != mra(other).last_hidden_state).any(-1)[0].nonzero().flatten().tolist()
print(f"MRA without a GPU: if token 40 of 64 is another one, the states of {reached} change")
sys.exit(not (apart.pop("BERT") < 1e-4 and min(apart.values()) > 1e-2 and changed > 1e-2 and reached == [40]))
PY
