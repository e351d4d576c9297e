"""`bert-ft embed`: vectors of the texts of a file, or of their words."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bert_ft.cli.options import TrustRemoteCode, app, note, settings_of
from bert_ft.cli.predict import KeepBad, ReadAs

Checkpoint = Annotated[
    str, typer.Argument(metavar="CHECKPOINT_OR_RUN", help="Hub id, folder, or an earlier run.")
]
Source = Annotated[str, typer.Argument(metavar="FILE", help="Rows with a text; - is standard input.")]
Output = Annotated[
    str, typer.Option("--output", "-o", help="File of the vectors; - is standard output (jsonl).")
]
WriteAs = Annotated[
    str | None, typer.Option("--to", help="npy, parquet, arrow or jsonl; else the suffix says.")
]
Text = Annotated[str, typer.Option("--text", metavar="COLUMN", help="The column of the text.")]
Words = Annotated[bool, typer.Option("--words", help="A vector for each word, with its characters.")]
Windows = Annotated[
    bool, typer.Option("--windows", help="Read long texts whole, in windows, instead of cutting them.")
]
Pooling = Annotated[
    str | None,
    typer.Option(help="mean, cls, max; of words mean, max, first. What the folder declares, else mean."),
]
Layers = Annotated[
    str | None, typer.Option(help="0 are the embeddings, -1 is the last: --layers=-4,-3,-2,-1")
]
Combine = Annotated[str, typer.Option(help="Several layers: concat, sum or mean.")]
Normalize = Annotated[
    bool | None,
    typer.Option("--normalize/--no-normalize", help="Vectors of length 1; else as the folder declares."),
]
Dimensions = Annotated[int | None, typer.Option(help="Keep the first so many numbers of a vector.")]
Prompt = Annotated[str | None, typer.Option(help='Set before each text: "query: ".')]
PromptName = Annotated[str | None, typer.Option(help="A prompt of the folder, by its name.")]
Dtype = Annotated[str, typer.Option(help="float32, float16, or int8, each vector by its own scale.")]
Precision = Annotated[str, typer.Option(help="What is computed in: auto, fp32, bf16 or fp16.")]
MaxLength = Annotated[int | None, typer.Option(help="Tokens of a text, or of a window, at most.")]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub id.")]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="How the file is written: delimiter=;, quoting=false. A speed-up off: unpad=false, lean=false.",
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress.")]


@app.command()
def embed(
    checkpoint: Checkpoint,
    source: Source = "-",
    output: Output = "-",
    read_as: ReadAs = None,
    write_as: WriteAs = None,
    text: Text = "text",
    words: Words = False,
    windows: Windows = False,
    pooling: Pooling = None,
    layers: Layers = None,
    combine: Combine = "concat",
    normalize: Normalize = None,
    dimensions: Dimensions = None,
    prompt: Prompt = None,
    prompt_name: PromptName = None,
    dtype: Dtype = "float32",
    precision: Precision = "auto",
    max_length: MaxLength = None,
    revision: Revision = None,
    sets: Sets = None,
    keep_bad: KeepBad = False,
    quiet: Quiet = False,
    trust_remote_code: TrustRemoteCode = None,
) -> None:
    """Turn the texts of a file, or their words, into vectors; rows stream, so any number of them will do.

    \b
    bert-ft embed sentence-transformers/all-MiniLM-L6-v2 reviews.csv --text review -o reviews.npy
    bert-ft embed google-bert/bert-base-chinese texts.txt --words --layers=-4,-3,-2,-1 -o words.parquet
    """
    from bert_ft.config.task import Task
    from bert_ft.errors import InputError
    from bert_ft.tools.embed.embed import layers_of, load
    from bert_ft.tools.embed.files import SPEED_UPS, embed_file

    if Path(output).is_dir():
        raise InputError("a folder lies here", where=output, remedy="name a file: -o vectors.npy")
    how = settings_of(sets)
    switches = {key: how.pop(key) for key in list(how) if key in SPEED_UPS}
    batching = Task().override(switches, "--set").batching
    settings = {
        "pooling": None if words else pooling,
        "layers": layers_of(layers),
        "combine": combine,
        "normalize": normalize,
        "dimensions": dimensions,
        "prompt": prompt,
        "prompt_name": prompt_name,
        "windows": windows,
        "precision": precision,
        "max_length": max_length,
        "revision": revision,
        "unpad": batching.unpad,
        "lean": batching.lean,
        "trust_remote_code": trust_remote_code,
    }
    embedder = load(checkpoint, words, **settings)
    if not quiet:
        note(*embedder.notes)
    outcome = embed_file(
        embedder,
        source,
        output,
        column=text,
        words=pooling or "mean" if words else None,
        dtype=dtype,
        read_as=read_as,
        write_as=write_as,
        keep_bad=keep_bad,
        settings=how,
        quiet=quiet,
        tell=note,
    )
    if outcome.bad:
        note(f"{len(outcome.bad):,} of {outcome.rows:,} rows are at fault{outcome.became}")
        raise SystemExit(0 if keep_bad else 2)
