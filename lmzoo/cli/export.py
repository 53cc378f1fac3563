"""The command `lmzoo export`, which writes a trained model as a directory in the form of Hugging Face."""

from __future__ import annotations

import time
from pathlib import Path

import click

from lmzoo import humanize
from lmzoo.cli.group import cli, plugin_option, print_json, suggestion, tokenizer_option
from lmzoo.cli.imports import DTYPES

QUIET_SECONDS = 2.0  # an export that takes longer says what it does


@cli.command(short_help="Write a trained model for Hugging Face transformers.")
@click.argument("source", metavar="RUN|MODEL", type=click.Path(path_type=Path))
@click.argument("destination", metavar="DST", type=click.Path(path_type=Path))
@click.option("--type", "model_type", metavar="TYPE", help="The model type.  [default: the first that fits]")
@click.option("--dtype", type=click.Choice(DTYPES), help="Of the weights.  [default: as in the run]")
@click.option("--license", "license_", metavar="NAME", help="The license, for the model card, such as apache-2.0.")
@click.option("--json", "as_json", is_flag=True, help="Print what was written as one JSON object.")
@tokenizer_option
@plugin_option
def export(
    source: Path,
    destination: Path,
    model_type: str | None,
    dtype: str | None,
    license_: str | None,
    as_json: bool,
    tokenizer: Path | None,
) -> None:
    """Write a trained model as a directory that Hugging Face transformers loads, with the same logits.

    DST is a new or empty directory. It gets config.json, model.safetensors (several files above 5 GB), tokenizer.json,
    tokenizer_config.json and README.md, a model card with the results of the run. lmzoo loads it again.

    TYPE is a model type of transformers, such as llama or mistral; by default the first that has all settings of the
    model. If none has them, the command names those that stand in the way and writes nothing: the type lmzoo is a form
    for every model, which transformers loads after lmzoo.hf.register(). A family that transformers does not know gets
    it by default. docs/hugging-face.md says more.

    \b
    lmzoo export runs/llama.tiny llama-hf
    lmzoo export runs/llama.tiny llama-hf --dtype bfloat16 --license apache-2.0
    lmzoo export runs/llama.tiny/checkpoints/step-00001000 llama-1000
    lmzoo export runs/retnet.tiny retnet-hf --type lmzoo
    """
    import torch

    from lmzoo.runs.export import export_run
    from lmzoo.train.events import DataEvent
    from lmzoo.train.progress import ProgressBar

    began = time.monotonic()
    with ProgressBar() as bar:

        def show_progress(what: str, done: int, total: int) -> None:
            if time.monotonic() - began > QUIET_SECONDS:
                bar(DataEvent(what, done, total))

        written = export_run(
            source,
            destination,
            model_type=model_type,
            dtype=None if dtype is None else getattr(torch, dtype),
            tokenizer=tokenizer,
            license=license_,
            progress=show_progress,
        )
    if as_json:
        print_json(written.to_dict())
        return
    for name, value in written.left_out.items():
        click.echo(f"left out: {name}={value}, which acts in training alone", err=True)
    again = suggestion("check", str(destination))
    click.echo(
        f"wrote {humanize.line(str(destination))}   model type {written.model_type}, "
        f"{humanize.count(written.parameters)} parameters, {written.dtype}   try: {again}"
    )
