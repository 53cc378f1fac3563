"""The command `lmzoo import`, which makes a model directory of lmzoo from a checkpoint of Hugging Face transformers."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import click

from lmzoo import humanize
from lmzoo.cli.group import cli
from lmzoo.errors import CheckpointError

DTYPES = ("float32", "bfloat16", "float16", "float64")


@cli.command("import", short_help="Convert a checkpoint of Hugging Face transformers.")
@click.argument("source", metavar="SOURCE|hf:ORG/NAME[@REVISION]")
@click.argument("destination", type=click.Path(path_type=Path))
@click.option("--dtype", type=click.Choice(DTYPES), help="Of the weights.  [default: as in the checkpoint]")
def import_command(source: str, destination: Path, dtype: str | None) -> None:
    """Convert a checkpoint of Hugging Face transformers to a model directory of lmzoo.

    SOURCE is a folder with config.json, model.safetensors (or shards with an index) and the files of the tokenizer. The
    logits stay the same. docs/hugging-face.md lists the model types, and how to convert pickled files.
    With hf:, the model is fetched from the Hugging Face hub first, or from the server in HF_ENDPOINT.

    \b
    lmzoo import hf:HuggingFaceTB/SmolLM2-135M smol
    lmzoo import ~/models/SmolLM2-135M smol
    lmzoo sample smol --prompt "The capital of France is"
    lmzoo eval smol --data my_text.txt
    lmzoo check smol
    """
    import torch

    from lmzoo.data.tokenizers import TOKENIZER_FILE, load_tokenizer
    from lmzoo.hf import hub
    from lmzoo.hf.load import load_checkpoint

    if os.path.lexists(destination):
        raise CheckpointError(f"{destination}: exists: it is left as it is")
    folder = Path(source)
    if source.startswith(hub.PREFIX):
        folder = hub.fetch(source, lambda line: click.echo(line, err=True)).folder
    has_tokenizer = os.path.lexists(folder / TOKENIZER_FILE)
    tokenizer = load_tokenizer(folder) if has_tokenizer else None
    model = load_checkpoint(folder, dtype=None if dtype is None else getattr(torch, dtype))
    model.save(destination, tokenizer=None if tokenizer is None else tokenizer.for_model(model.config.vocab_size))
    text = "" if has_tokenizer else f", without a tokenizer: {source} has no {TOKENIZER_FILE}"
    click.echo(
        f"wrote {humanize.line(str(destination))}   {model.family}, {humanize.count(model.num_params())} parameters, "
        f"{str(model.dtype).removeprefix('torch.')}{humanize.line(text)}   "
        f"try: {humanize.line(shlex.join(['lmzoo', 'check', str(destination)]))}"
    )
