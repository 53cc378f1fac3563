"""The command `lmzoo new`, which begins a model in a file of its own."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import click

from lmzoo import humanize, registry, skeleton
from lmzoo.cli.group import cli
from lmzoo.errors import ConfigError


@cli.command(short_help="Write a Python file with a new model that passes all checks.")
@click.argument("name")
@click.option("--out", type=click.Path(path_type=Path), help="The file to write.  [default: NAME.py]")
def new(name: str, out: Path | None) -> None:
    """Begin a model: write a Python file that registers it and passes all checks.

    \b
    lmzoo new my-mixer
    lmzoo check my_mixer.py
    lmzoo train my-mixer.tiny --plugin my_mixer.py
    """
    from lmzoo.storage import atomic

    registry.require_new_name(name)
    path = out or Path(skeleton.file_name(name))
    if path.suffix != ".py":
        raise ConfigError(f"out={path} must be the name of a Python file, such as {skeleton.file_name(name)}")
    if os.path.lexists(path):
        raise ConfigError(f"out={path} exists: it is left as it is")
    atomic.write_file(path, skeleton.skeleton(name, path.name))
    again = shlex.join(["lmzoo", "check", str(path)])
    click.echo(f"wrote {humanize.line(str(path))}   try: {humanize.line(again)}")
