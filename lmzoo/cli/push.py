"""The command `lmzoo push`, which uploads an exported model to the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

import click

from lmzoo import humanize
from lmzoo.cli.group import cli


@cli.command(short_help="Upload an exported model to the Hugging Face hub.")
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("repository", metavar="ORG/NAME")
@click.option("--private", is_flag=True, help="Make a private repository; refuse an existing public one.")
@click.option("--message", default="Upload a model of lmzoo", show_default=True, help="Of the commit.")
@click.option("--dry-run", is_flag=True, help="Show what would be uploaded, and end.")
def push(folder: Path, repository: str, private: bool, message: str, dry_run: bool) -> None:
    """Upload an exported model to the Hugging Face hub, or to the server in HF_ENDPOINT.

    FOLDER has the form of transformers: config.json, model.safetensors, the tokenizer, and README.md, the model card.
    Other files in it stay here. It needs a token that may write: `hf auth login`, or HF_TOKEN.

    \b
    lmzoo push exported me/my-model --private
    lmzoo push exported me/my-model --dry-run
    """
    from lmzoo.hf import hub

    upload = hub.plan_upload(folder)
    total = humanize.size(sum(upload.sizes.values()))
    click.echo(f"{len(upload.sizes)} files, {total}, for {humanize.line(repository)}:", err=True)
    for name, size in upload.sizes.items():
        click.echo(f"  {humanize.line(name)}  {humanize.size(size)}", err=True)
    if upload.left_out:
        click.echo(f"left out: {humanize.line(', '.join(upload.left_out))}", err=True)
    if dry_run:
        return
    address = hub.push(upload, repository, private=private, message=message)
    click.echo(f"uploaded {humanize.line(address)}")
