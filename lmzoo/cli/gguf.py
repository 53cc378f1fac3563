"""The command `lmzoo gguf`, which writes a model as a GGUF file."""

from __future__ import annotations

from pathlib import Path

import click

from lmzoo import humanize
from lmzoo.cli.group import cli, plugin_option


@cli.command()
@click.argument("source", metavar="RUN|MODEL", type=click.Path(path_type=Path))
@click.argument("destination", metavar="FILE.gguf", type=click.Path(path_type=Path))
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16", "bfloat16"]),
    help="Of the matrices.  [default: as in the model]",
)
@plugin_option
def gguf(source: Path, destination: Path, dtype: str | None) -> None:
    """Write a model as a GGUF file, which llama.cpp and others run.

    The source is a run, a saved model, or a checkpoint of Hugging Face transformers. docs/hugging-face.md lists the
    families that have an architecture in GGUF. The tokenizer is written if it is byte-level BPE with a pattern that
    llama.cpp knows, which a tokenizer bpe:N of lmzoo is.

    \b
    lmzoo gguf runs/llama.tiny llama.gguf
    lmzoo gguf smol smol.gguf --dtype float16
    """
    from lmzoo.gguf.write import write_gguf
    from lmzoo.runs.saved import load_model_and_tokenizer

    model, tokenizer = load_model_and_tokenizer(source)
    done = write_gguf(model, destination, tokenizer, dtype=dtype)
    text = f"tokenizer {done.tokenizer}" if done.tokenizer else "without a tokenizer: give and take token ids"
    click.echo(f"wrote {humanize.line(str(destination))}   architecture {done.arch}, {done.tensors} tensors, {text}")
