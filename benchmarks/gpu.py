"""Training on a GPU: `transformers.Trainer` with sdpa and with flash attention against bert-ft, and promises 1 and 11.

    python benchmarks/gpu.py                 # under 9 minutes: writes benchmarks/results/gpu.md
    python benchmarks/gpu.py --dry           # the same code on tiny models, on a CPU; measures nothing, writes nothing

One command for a bare machine: it needs torch with CUDA, transformers, accelerate and this repository, but no data, no
checkpoint and no network. (Flash attention for `Trainer`: `pip install flash-attn` where there is a wheel for the
machine's torch; without it those cells say so.) Weights are random, and rows are random tokens of lengths drawn once,
close to those of SST-2 (mean 13, at most 66), MNLI (40, 128) and SQuAD's windows (170, 384): the time of a step depends
on neither. Every variant trains the same rows in batches of one size, bf16, dropout on, fused AdamW, clipping. One
whole epoch warms up, which has every shape, and the next one is timed: length-grouped batches are sorted, so that a
part of an epoch would be no fair sample. Rounds go over all variants in turn until the time is up.

- default, grouped:   Trainer with sdpa, random order; `train_sampling_strategy="group_by_length"`
- flash, flash grouped: the same with `attn_implementation="flash_attention_2"`, if that package is there
- ours, ours grouped: padding-free, the last layer for the first token alone, the layers recorded as CUDA graphs; random
  order, and `batching.order = "length"`
- ours eager:         random order, `batching.graphs = false`
- ours compiled:      eager, the parts of each layer behind attention through `torch.compile(dynamic=True)`: whole layers
  would be compiled anew at every step, since the lengths of a batch are numbers of the program to them
"""

from __future__ import annotations

import argparse
import gc
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import transformers as tf

PAGE = Path(__file__).parent / "results" / "gpu.md"
VARIANTS = (
    "default",
    "grouped",
    "flash",
    "flash grouped",
    "ours",
    "ours grouped",
    "ours eager",
    "ours compiled",
)
VOCABULARY = 30_000
MEGABATCH = 50  # batches that are sorted together, by Trainer and by us: one epoch


@dataclass(frozen=True)
class Lengths:
    """Rows of a data set's lengths: their mean, their spread (of the logarithm), the longest, and rows a batch."""

    mean: float
    spread: float
    longest: int
    batch: int

    def draw(self, rows: int) -> np.ndarray:
        """(rows,) tokens of each row, special ones included."""
        random = np.random.default_rng(0)
        drawn = random.lognormal(np.log(self.mean) - self.spread**2 / 2, self.spread, rows)
        return np.clip(drawn.round().astype(np.int64), 3, self.longest)


LENGTHS = {
    "SST-2": Lengths(13, 0.7, 66, 32),
    "MNLI": Lengths(40, 0.45, 128, 32),
    "SQuAD": Lengths(170, 0.4, 384, 16),
}
DRY = {"SST-2": Lengths(6, 0.5, 12, 4)}


def bert(hidden: int, layers: int, heads: int) -> Any:
    return tf.BertConfig(vocab_size=VOCABULARY, hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads,
                         intermediate_size=4 * hidden)  # fmt: skip


def modernbert(hidden: int, layers: int, heads: int, inner: int) -> Any:
    """ModernBERT's shape; with dropout as BERT has it, since without none of the differences would show."""
    return tf.ModernBertConfig(
        vocab_size=VOCABULARY, hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads,
        intermediate_size=inner, attention_dropout=0.1, mlp_dropout=0.1, embedding_dropout=0.1, classifier_dropout=0.1,
        pad_token_id=0, cls_token_id=1, bos_token_id=1, eos_token_id=2, sep_token_id=2,
    )  # fmt: skip


SHAPES: dict[str, Callable[[], Any]] = {
    "MiniLM (6 x 384)": lambda: bert(384, 6, 12),
    "BERT-base (12 x 768)": lambda: bert(768, 12, 12),
    "ModernBERT-base (22 x 768)": lambda: modernbert(768, 22, 12, 1152),
}
TINY: dict[str, Callable[[], Any]] = {
    "BERT (2 x 32)": lambda: bert(32, 2, 4),
    "ModernBERT (2 x 32)": lambda: modernbert(32, 2, 4, 48),
}


def network(config: Any, attention: str, device: torch.device) -> Any:
    """A random classifier, the same at each call."""
    torch.manual_seed(0)
    with device:  # a processor draws a hundred million weights in seconds
        model = tf.AutoModelForSequenceClassification.from_config(config, attn_implementation=attention)
    return model.to(device).train()


class Adapter:
    """The least of an adapter: the head's logits, and a loss a row."""

    def __init__(self, task: Any) -> None:
        self.task = task

    def logits(self, outputs: Any) -> Any:
        return outputs.logits

    def loss(self, logits: Any, batch: Mapping[str, Any]) -> Any:
        return torch.nn.functional.cross_entropy(logits, batch["labels"], reduction="none")


class Clock:
    """Seconds of the second epoch, and the most memory that it held.

    Attributes:
        steps: of an epoch.
    """

    def __init__(self, steps: int, device: torch.device) -> None:
        self.steps = steps
        self.device = device
        self.seconds = 0.0
        self.peak = 0.0

    def step(self, done: int) -> None:
        """After optimizer step `done`, the first of which is 1."""
        if done not in (self.steps, 2 * self.steps):
            return
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        if done == self.steps:
            self.seconds = time.perf_counter()
            if self.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
        else:
            self.seconds = time.perf_counter() - self.seconds
            if self.device.type == "cuda":
                self.peak = torch.cuda.max_memory_allocated() / 2**20


def features_of(lengths: Lengths, batches: int) -> Any:
    """Random tokens of these lengths, labels 0 and 1."""
    from bert_ft.families.features import Features

    sizes = lengths.draw(batches * lengths.batch)
    ids = np.random.default_rng(1).integers(4, VOCABULARY, int(sizes.sum())).astype(np.int32)
    labels = np.arange(len(sizes)) % 2
    return Features(
        np.concatenate([[0], np.cumsum(sizes)]), {"input_ids": ids}, {"labels": labels}, np.ones(len(sizes))
    )


def train_ours(variant: str, config: Any, features: Any, batch: int, clock: Clock, dry: bool) -> str:
    """Two epochs of the engine; what it says of its speed-ups."""
    import bert_ft
    from bert_ft.engine import accelerator, loop
    from bert_ft.engine.callbacks import Callback
    from bert_ft.kernels import last_layer, padding_free, probing

    model = network(config, "sdpa", clock.device)
    unpadding = padding_free.unpad(model, torch.bfloat16)
    narrowing = last_layer.narrow(model, torch.bfloat16)
    if variant == "ours compiled":
        stack = probing.stack(model)
        for layer in list(getattr(stack, "layer", stack))[:-1]:
            for name, part in layer.named_children():
                if "attention" not in name and not name.startswith("attn"):
                    part.compile(dynamic=True, backend="eager" if dry else "inductor")
    task = bert_ft.load_task("classification").override(
        {
            "max_steps": 2 * clock.steps,
            "batch_size": batch,
            "eval_every": 4 * clock.steps,
            "log_every": 4 * clock.steps,
            "recipe.precision": "bf16",
            "batching.order": "length" if variant == "ours grouped" else "random",
            "batching.graphs": variant in ("ours", "ours grouped"),
        }
    )

    said: list[dict[str, Any]] = []

    class Listener(Callback):
        def on_step(self, step: int, entry: dict[str, Any] | None) -> None:
            clock.step(step)

    trained = SimpleNamespace(
        network=model,
        adapter=Adapter(task),
        tokenizer=SimpleNamespace(pad_token_id=0),
        accelerator=accelerator.accelerator("bf16"),
        sharing=None,
    )
    loop.train(
        trained,
        features,
        evaluate=lambda: {"validation": {"accuracy": 0.0}},
        log=said.append,
        callbacks=[Listener()],
    )
    graphs = [entry["graphs"] for entry in said if "graphs" in entry]
    return "; ".join([unpadding.reason, narrowing.reason, *graphs])


def train_theirs(variant: str, config: Any, features: Any, batch: int, clock: Clock) -> str:
    """Two epochs of Trainer."""
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)
    flash = variant.startswith("flash")
    model = network(config, "flash_attention_2" if flash else "sdpa", clock.device)
    rows = [
        {"input_ids": features.tokens["input_ids"][a:b].tolist(), "labels": int(label)}
        for a, b, label in zip(
            features.offsets, features.offsets[1:], features.values["labels"], strict=False
        )
    ]

    def collate(part: list[dict[str, Any]]) -> dict[str, Any]:
        longest = max(len(row["input_ids"]) for row in part)
        ids = torch.zeros(len(part), longest, dtype=torch.long)
        for at, row in enumerate(part):
            ids[at, : len(row["input_ids"])] = torch.tensor(row["input_ids"])
        return {
            "input_ids": ids,
            "attention_mask": (ids > 0).long(),
            "labels": torch.tensor([row["labels"] for row in part]),
        }

    class Listener(tf.TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, arguments: Any, state: Any, control: Any, **_: Any) -> None:
            clock.step(state.global_step)

    grouped = {"train_sampling_strategy": "group_by_length"} if variant.endswith("grouped") else {}
    with tempfile.TemporaryDirectory() as folder:
        arguments = tf.TrainingArguments(
            output_dir=folder, num_train_epochs=2, per_device_train_batch_size=batch, bf16=True, report_to=[],
            save_strategy="no", logging_strategy="no", disable_tqdm=True, use_cpu=clock.device.type == "cpu",
            **grouped,
        )  # fmt: skip
        tf.Trainer(model, arguments, collate, train_dataset=rows, callbacks=[Listener()]).train()
    AcceleratorState._reset_state(reset_partial_state=True)
    return "flash_attention_2" if flash else "sdpa"


def measured(variant: str, config: Any, lengths: Lengths, device: torch.device, dry: bool) -> dict[str, Any]:
    """Milliseconds a step, microseconds a token, peak memory in MB, and flops a second; or why there are none."""
    steps = 3 if dry else MEGABATCH
    features = features_of(lengths, steps)
    clock = Clock(steps, device)
    try:
        if variant.startswith("ours"):
            note = train_ours(variant, config, features, lengths.batch, clock, dry)
        else:
            note = train_theirs(variant, config, features, lengths.batch, clock)
    except (ImportError, RuntimeError, ValueError) as error:  # no flash attention, no compiler, no memory
        return {"failed": f"{type(error).__name__}: {error}".splitlines()[0][:160]}
    finally:
        torch.compiler.reset()
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
    tokens = int(features.lengths.sum())
    return {
        "step": 1000 * clock.seconds / steps,
        "token": 1e6 * clock.seconds / tokens,
        "peak": clock.peak,
        "flops": flops(config, features.lengths) / clock.seconds,
        "note": note,
    }


def flops(config: Any, lengths: np.ndarray) -> float:
    """Of the matrix products of a forward and a backward on real tokens."""
    h, inner = config.hidden_size, config.intermediate_size
    feed_forward = (3 if config.model_type == "modernbert" else 2) * h * inner
    real = lengths.astype(np.float64)
    each = 2 * (4 * h * h + feed_forward) * real.sum() + 4 * h * (real**2).sum()
    return float(3 * config.num_hidden_layers * each)


def rate(device: torch.device) -> float:
    """Flops a second of a large bf16 matrix product."""
    size = 8192 if device.type == "cuda" else 128
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    times = []
    for _ in range(10):
        if device.type == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        a @ b
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return 2 * size**3 / statistics.median(times)


def batch_of(lengths: list[int], device: torch.device) -> dict[str, Any]:
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    ids = torch.randint(4, VOCABULARY, mask.shape, generator=torch.Generator().manual_seed(0)).where(mask, 0)
    return {"input_ids": ids.to(device), "attention_mask": mask.long().to(device)}


def promises(shapes: Mapping[str, Callable[[], Any]], device: torch.device, draws: int) -> Iterator[str]:
    """Lines: promise 1, padding-free with the last layer for the first token, as it is and recorded, equals plain and
    padded, logits and all gradients, in fp32, and in bf16 is as far from them as plain and padded bf16 is; promise 11,
    under dropout the logits of both have one distribution."""
    for name, make in shapes.items():
        config = make()
        config.num_hidden_layers = 2
        config.initializer_range = (
            1.7 * config.hidden_size**-0.5
        )  # large, so that what attention sees matters
        if hasattr(config, "layer_types"):
            config.layer_types = config.layer_types[:2]
        for rate in ("hidden_dropout_prob", "attention_probs_dropout_prob", "attention_dropout", "mlp_dropout",
                     "embedding_dropout", "classifier_dropout"):  # fmt: skip
            if getattr(config, rate, None) is not None:
                setattr(config, rate, 0.0)
        exact, _ = gradients(config, device, None, "plain")
        for half, kind in ((None, "free"), (torch.bfloat16, "free"), (torch.bfloat16, "recorded")):
            found, said = gradients(config, device, half, kind)
            apart = [float((a - b).norm() / b.norm()) for a, b in zip(found, exact, strict=True)]
            bounds = [1e-4, 1e-4]
            if half is not None:
                plain, _ = gradients(config, device, half, "plain")
                bounds = [1.5 * float((a - b).norm() / b.norm()) for a, b in zip(plain, exact, strict=True)]
            kept = all(value <= bound for value, bound in zip(apart, bounds, strict=True))
            yield (
                f"| 1: equals plain and padded | {name}, 2 layers, {'bf16' if half else 'fp32'}, {kind} | logits "
                f"{apart[0]:.1e} from plain fp32, gradients {apart[1]:.1e} (at most {bounds[0]:.1e}, {bounds[1]:.1e}); "
                f"{said} | {'kept' if kept else '**BROKEN**'} |"
            )
        for kind in ("free", "recorded"):
            yield dropout_line(name, make(), device, draws, kind)


@contextmanager
def prepared(
    config: Any, device: torch.device, half: torch.dtype | None, kind: str, rows: int
) -> Iterator[tuple[Any, Callable[[], str]]]:
    """A random classifier: "plain", padding-"free", or also "recorded"; and what can be said of it afterwards."""
    from bert_ft.kernels import graphs, last_layer, padding_free

    model = network(config, "sdpa", device)
    said = "plain"
    if kind != "plain":
        said = f"{padding_free.unpad(model, half).reason}; {last_layer.narrow(model, half).reason}"
    with graphs.recorded(model, rows, half) if kind == "recorded" else nullcontext() as layers:
        yield (
            model,
            lambda: said if kind != "recorded" else f"{said}; {layers and (layers.reason, layers.replayed)}",
        )


def gradients(
    config: Any, device: torch.device, half: torch.dtype | None, kind: str
) -> tuple[list[Any], str]:
    """Logits and all gradients of a model without dropout, and how it was computed."""
    inputs = batch_of([48, 3, 20, 7, 33], device)
    with prepared(config, device, half, kind, 5) as (model, said):
        for _ in range(2):  # the second step replays what the first may have recorded
            model.zero_grad()
            with torch.autocast(device.type, half or torch.bfloat16, enabled=half is not None):
                logits = model(**inputs).logits.float()
            logits.pow(2).sum().backward()
        flat = [p.grad.flatten().float() for p in model.parameters() if p.grad is not None]
        return [logits.detach().flatten(), torch.cat(flat)], said()


def dropout_line(name: str, config: Any, device: torch.device, draws: int, kind: str) -> str:
    """Promise 11 for a model: means and variances of the logits over many draws, plain and padded, and ours."""
    lengths = [9, 2, 5]
    copies = 50
    inputs = {key: value.repeat(copies, 1) for key, value in batch_of(lengths, device).items()}
    moments = []
    for seed, each in enumerate(("plain", kind)):
        drawn = []
        with prepared(config, device, torch.bfloat16, each, copies * len(lengths)) as (model, said):
            torch.manual_seed(seed)
            for _ in range(max(1, draws // copies)):
                with torch.autocast(device.type, torch.bfloat16):
                    drawn.append(model(**inputs).logits.float().view(copies, -1).detach())
            how = said()
        x = torch.cat(drawn).double()
        mean, variance = x.mean(0), x.var(0)
        fourth = (x - mean).pow(4).mean(0)
        moments.append((mean, variance / len(x), variance, (fourth - variance**2) / len(x)))
    expected, (mean, mean_error, variance, variance_error) = moments
    distance = torch.cat(
        [
            (mean - expected[0]) / (mean_error + expected[1]).sqrt(),
            (variance - expected[2]) / (variance_error + expected[3]).sqrt(),
        ]
    )
    worst = float(distance.abs().max())
    kept = worst < 4.5 and bool((variance > 0).all())
    return (
        f"| 11: one distribution under dropout | {name}, bf16, {draws:,} draws, {kind} | means and variances of the logits "
        f"within {worst:.1f} standard errors; {how} | {'kept' if kept else '**BROKEN**'} |"
    )


def lines(cells: Mapping[tuple[str, str, str], list[dict[str, Any]]], peak_rate: float) -> Iterator[str]:
    """The table: medians over the rounds, ratios within each round."""
    yield (
        "| model | lengths | variant | ms a step | µs a token | times ours, by the token (range) | peak MB "
        "| share of the matmul rate | rounds |"
    )
    yield "|---|---|---|---|---|---|---|---|---|"
    for (shape, length, variant), runs in cells.items():
        where = f"| {shape} | {length} | {variant} "
        done = [run for run in runs if "failed" not in run]
        if not done:
            yield f"{where}| {runs[-1]['failed'] if runs else 'the time was up'} | | | | | 0 |"
            continue
        step, token, memory, speed = (
            statistics.median(run[key] for run in done) for key in ("step", "token", "peak", "flops")
        )
        ours = cells.get((shape, length, "ours"), [])
        ratios = [
            a["token"] / b["token"] for a, b in zip(runs, ours, strict=False) if "token" in a and "token" in b
        ]
        shown = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})" if ratios else ""
        yield (
            f"{where}| {step:.1f} | {token:.2f} | {shown} | {memory:.0f} | {speed / peak_rate:.2f} | {len(done)} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dry", action="store_true", help="tiny models on the CPU: does the script run?")
    parser.add_argument("--minutes", type=float, default=8.0, help="no further cell begins after so many")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES), help="the first words of their names do")
    parser.add_argument("--lengths", nargs="+", choices=list(LENGTHS), default=list(LENGTHS))
    parser.add_argument("--no-promises", action="store_true", help="times alone")
    parser.add_argument("--output", type=Path, default=PAGE)
    options = parser.parse_args()
    if not options.dry and not torch.cuda.is_available():
        parser.error("no CUDA device here; --dry tries the script on the CPU")
    device = torch.device("cpu" if options.dry else "cuda")
    torch.backends.cuda.matmul.allow_tf32 = False
    tf.logging.set_verbosity_error()
    end = time.monotonic() + 60 * options.minutes
    shapes, sets = (TINY, DRY) if options.dry else (SHAPES, LENGTHS)
    if not options.dry:
        shapes = {name: make for name, make in shapes.items() if name.startswith(tuple(options.shapes))}
        sets = {name: sets[name] for name in options.lengths}
    held = [] if options.no_promises else list(promises(shapes, device, 100 if options.dry else 2000))
    print("\n".join(held), flush=True)
    peak_rate = rate(device)
    cells: dict[tuple[str, str, str], list[dict[str, Any]]] = {
        (shape, length, variant): [] for shape in shapes for length in sets for variant in options.variants
    }
    for _ in range(1 if options.dry else 5):
        for (shape, length, variant), runs in cells.items():
            if time.monotonic() < end and not any("failed" in run for run in runs):
                runs.append(measured(variant, shapes[shape](), sets[length], device, options.dry))
                print(shape, length, variant, runs[-1], flush=True)
    name = torch.cuda.get_device_name() if device.type == "cuda" else "a CPU, dry: these are no measurements"
    text = "\n".join(
        [
            "# Training on a GPU",
            "",
            f"`python benchmarks/gpu.py`: {name}, bf16, {peak_rate / 1e12:.0f} Tflop/s in a large matrix product; torch "
            f"{torch.__version__}, transformers {tf.__version__}. Random weights, rows of random tokens; whole epochs of "
            f"{MEGABATCH} batches, the second of two; medians over the rounds.",
            "",
            *lines(cells, peak_rate),
            "",
            "| promise | where | what | |",
            "|---|---|---|---|",
            *held,
            "",
        ]
    )
    print(text)
    if not options.dry:
        options.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
