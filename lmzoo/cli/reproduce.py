"""`lmzoo reproduce`: results of papers, trained again at a small size."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from lmzoo import humanize
from lmzoo.cli.group import cli, print_json
from lmzoo.errors import ConfigError


def complete_recipes(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Completes the name of a recipe."""
    from lmzoo.reproducing import list_recipes

    return [CompletionItem(name) for name in list_recipes() if name.startswith(incomplete)]


@cli.command(short_help="Repeat the result of a paper at a small size.")
@click.argument("name", metavar="[NAME]", required=False, shell_complete=complete_recipes)
@click.option("--out", type=click.Path(path_type=Path), help="Directory of all runs.  [default: runs/reproduce/NAME]")
@click.option(
    "--workers",
    metavar="N",
    type=int,
    help="Runs made at once.  [default: one for each CPU core, or 1 on a GPU]",
)
@click.option("--device", metavar="cpu|cuda", help="Where to train.  [default: a GPU if there is one]")
@click.option("--json", "as_json", is_flag=True, help="Print reproduced.json in the place of the table.")
def reproduce(
    name: str | None,
    out: Path | None,
    workers: int | None,
    device: str | None,
    as_json: bool,
) -> None:
    """Train what a paper's result needs at a small size, and compare the figures with what is expected.

    Without NAME, list the recipes. A recipe trains several models on the same tasks, with the same learning rates and
    seeds, and has a band for each figure. Run it again after an interruption: it continues. Exits with 0 if all figures
    are inside their bands, with 1 if one is not, and with 2 on bad input.

    \b
    lmzoo reproduce
    lmzoo reproduce mqar
    lmzoo reproduce parity --workers 2 --out runs/parity
    lmzoo reproduce olmo-hybrid-small --json
    """
    if name is None:
        for option, value in (("out", out), ("workers", workers), ("device", device)):
            if value is not None:
                raise ConfigError(f"{option}={value} needs the name of a recipe: lmzoo reproduce lists them")
        _list(as_json)
        return
    from lmzoo.compare.live import ComparisonProgress
    from lmzoo.reproducing import reproduce as run
    from lmzoo.reproducing.table import print_verdicts
    from lmzoo.reproducing.verdicts import to_json

    folder = out or Path("runs/reproduce", name)
    found = run(
        name,
        folder,
        workers=workers,
        device=device,
        listeners=[ComparisonProgress()],
        keep_freed_memory=True,
    )
    if as_json:
        click.echo(humanize.plain_json(to_json(found)), nl=False)
    else:
        print_verdicts(found, folder)
    sys.exit(0 if found.holds else 1)


def _list(as_json: bool) -> None:
    from lmzoo.reproducing import find_recipe, list_recipes
    from lmzoo.reproducing.table import list_text

    recipes = [find_recipe(name) for name in list_recipes()]
    if as_json:
        fields = ("name", "paper", "claim", "size", "method", "minutes")
        listed = [{key: dataclasses.asdict(recipe)[key] for key in fields} for recipe in recipes]
        print_json(listed, indent=1, ensure_ascii=False)
    else:
        click.echo(list_text(recipes))
