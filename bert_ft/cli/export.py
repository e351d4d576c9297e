"""`bert-ft export`: a run's model in the format of other programs."""

from __future__ import annotations

from typing import Annotated

import typer

from bert_ft.cli.options import Json, TrustRemoteCode, app, fail, note, print_json, print_line, print_table


@app.command()
def export(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A finished run.")],
    to: Annotated[str, typer.Option("--to", help="The format: onnx.")] = "onnx",
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="The folder; RUN/onnx, where predict looks for it.")
    ] = None,
    int8: Annotated[bool, typer.Option("--int8", help="Also a graph with weights of 8 bits.")] = False,
    fp16: Annotated[bool, typer.Option("--fp16", help="Also a graph in half precision.")] = False,
    as_json: Json = False,
    trust_remote_code: TrustRemoteCode = None,
) -> None:
    """Write a run's model as ONNX, and hold it against the model on the validation rows first.

    One graph of any number of rows of any length, with tokenizer, labels, thresholds and an example beside
    it. Where its logits are not the model's, nothing is written.

    \b
    bert-ft export runs/sst2-bert-base-uncased-seed42 --to onnx --int8
    bert-ft predict runs/sst2-bert-base-uncased-seed42 reviews.csv --onnx --int8
    """
    from bert_ft.report import exported
    from bert_ft.report.rendering import show
    from bert_ft.tools.export.export import export as write

    if to != "onnx":
        fail(f"--to {to}: a model is exported to onnx", 2)
    precisions = [name for name, asked in (("int8", int8), ("fp16", fp16)) if asked]
    folder, result = write(run, output, precisions=precisions, trust_remote_code=trust_remote_code, tell=note)
    if as_json:
        print_json(result | {"folder": str(folder)})
        return
    table = exported.table(result, result["metric"])
    print_table([dict(zip(table.columns, map(show, row), strict=True)) for row in table.rows])
    print_line(table.note)
    print_line(folder)
