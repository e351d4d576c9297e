"""ONNX graphs of a network: written in float32, then again with smaller numbers."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bert_ft.errors import InputError
from bert_ft.modeling.exported import needs

LARGEST = 2_000_000_000  # bytes: what protobuf takes is 2 GiB, graph and weights together
QUANTIZED = ["MatMul", "Gemm"]  # not the embeddings (Gather): they are looked up, which costs next to nothing


def write(network: Any, inputs: Mapping[str, Any], file: Path) -> list[str]:
    """Writes a network as one ONNX file, of any number of rows of any length.

    Args:
        network: of `transformers`, plain: without hooks of ours.
        inputs: name -> (B, L) of a ragged batch, B and L at least 2, that it is traced with.
    Returns:
        the names of what it gives: "logits", or "start_logits" and "end_logits".
    Raises:
        InputError: weights of more than 2 GB, or a network that torch's exporter can't follow.
    """
    import torch

    if size(network) > LARGEST:
        raise InputError(
            f"the weights are {size(network) / 1e9:.1f} GB, and one ONNX file holds 2 GB",
            where=str(file.name),
            remedy="export a smaller checkpoint's run",
        )
    passes = needs("onnx_ir.passes.common")
    network.eval()
    outputs: list[str] = []

    class Logits(torch.nn.Module):
        """The network with its inputs in order, and its logits alone."""

        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, *columns: Any) -> tuple[Any, ...]:
            found = self.network(**dict(zip(inputs, columns, strict=True)))
            outputs[:] = [name for name in found if name.endswith("logits")]
            return tuple(found[name] for name in outputs)

    dynamic = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    try:
        with quiet(), torch.no_grad():
            Logits()(*inputs.values())  # for the names
            program = torch.onnx.export(
                Logits().eval(),
                tuple(inputs.values()),
                dynamo=True,  # the older exporter is deprecated, and leaves the network in training mode
                input_names=list(inputs),
                output_names=list(outputs),
                dynamic_shapes=(tuple(dynamic for _ in inputs),),
                external_data=False,
                verbose=False,
            )
        passes.ClearMetadataAndDocStringPass()(program.model)  # stack traces, with this machine's paths
        program.save(str(file), external_data=False)
    except InputError:
        raise
    except Exception as error:  # whatever a network's code raises under the tracer
        raise InputError(
            f"torch's exporter can't make a graph of {type(network).__name__}: {_cause(error)}",
            where=network.config.model_type,
            remedy="`bert-ft predict` without --onnx answers with it",
        ) from None
    return outputs


def size(network: Any) -> int:
    """The bytes of a network's weights; those that several modules share are counted once."""
    return sum(tensor.numel() * tensor.element_size() for tensor in network.parameters())


def quantize(source: Path, target: Path) -> None:
    """Writes a graph with the weights of its matrix products as int8, a scale a channel; what they are
    multiplied with is quantised as it comes."""
    onnx = needs("onnx")
    quantization = needs("onnxruntime.quantization")
    plain = target.with_suffix(".plain")
    graph = onnx.load(source)
    # quantize_dynamic turns the weights of a Gemm round, and then trips over the shapes noted of them
    weights = {tensor.name for tensor in graph.graph.initializer}
    noted = [value for value in graph.graph.value_info if value.name not in weights]
    del graph.graph.value_info[:]
    graph.graph.value_info.extend(noted)
    try:
        onnx.save(graph, plain)
        with quiet():
            quantization.quantize_dynamic(
                plain,
                target,
                op_types_to_quantize=QUANTIZED,
                per_channel=True,
                weight_type=quantization.QuantType.QInt8,
                reduce_range=True,
                extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
            )
    finally:
        plain.unlink(missing_ok=True)


def halve(source: Path, target: Path) -> None:
    """Writes a graph in fp16 that takes and gives what the one in float32 does."""
    onnx = needs("onnx")
    converter = needs("onnxruntime.transformers.float16")
    with quiet():
        graph = converter.convert_float_to_float16(onnx.load(source), keep_io_types=True)
    onnx.save(graph, target)


def opset(file: Path) -> int:
    """The version of ONNX's own operators that a graph is written in."""
    graph = needs("onnx").load(file, load_external_data=False)
    return next(int(each.version) for each in graph.opset_import if each.domain in ("", "ai.onnx"))


def versions(packages: Sequence[str] = ("torch", "transformers", "onnx", "onnxscript", "onnxruntime")) -> Any:
    """Package -> its version."""
    from bert_ft.rundir import environment

    return {name: environment.version(name) for name in packages}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps what exporter and quantiser print and log to themselves."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    trace = logging.getLogger("torch.__trace")  # which obeys no `disable`
    propagated = trace.propagate
    trace.propagate = False
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
        trace.propagate = propagated


def _cause(error: BaseException) -> str:
    """The first line of what lies at the bottom of an error."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:300]
