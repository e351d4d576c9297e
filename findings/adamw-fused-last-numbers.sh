#!/usr/bin/env bash
# Guess: AdamW computes each number by itself, so that a parameter's first numbers end the same whatever follows them.
# Found: on a CPU with AVX2 the fused one rounds otherwise what is left beyond whole vectors of 8: a parameter of 20 numbers has
# other averages in its last 4, and after 100 steps another weight, than the first 20 of 64 with the same gradients. Plain and
# foreach ones have the same. So a parameter that is cut into parts, sharded or padded does not end with the same bits.
source "$(dirname "$0")/environment.bash"
python=$(environment torch==2.13.0)
"$python" - <<'PY'
import sys

import torch

print("torch", torch.__version__)
if torch.backends.cpu.get_cpu_capability() == "DEFAULT":
    print("this CPU has no vectors of 8 numbers: nothing to see")
    sys.exit()
torch.manual_seed(0)
start = torch.randn(64)
gradients = [torch.randn(64) * 10.0 ** torch.randint(-4, 1, (64,)) for _ in range(100)]


def trained(count: int, **kind: bool) -> dict[str, torch.Tensor]:
    """The first so many numbers after 100 steps, and their averages."""
    weight = torch.nn.Parameter(start[:count].clone())
    optimizer = torch.optim.AdamW([weight], **kind)
    for gradient in gradients:
        weight.grad = gradient[:count].clone()
        optimizer.step()
    averages = {name: optimizer.state[weight][name] for name in ("exp_avg", "exp_avg_sq")}
    return {"weight": weight.detach(), **averages}


odd = {}
for kind in ("fused", "foreach", "plain"):
    options = {} if kind == "plain" else {kind: True}
    whole = trained(64, **options)
    for count in (7, 8, 12, 16, 20, 24):
        found = trained(count, **options)
        places = {
            name: (values != whole[name][:count]).nonzero().flatten().tolist() for name, values in found.items()
        }
        odd[kind, count] = sorted({place for each in places.values() for place in each})
        print(f"{kind}, {count} numbers: other than the first of 64: {places}")
others = all(not places for (kind, count), places in odd.items() if kind != "fused" or count % 8 == 0)
beyond = all(
    places and min(places) >= count // 8 * 8 for (kind, count), places in odd.items() if kind == "fused" and count % 8
)
sys.exit(not (others and beyond))
PY
