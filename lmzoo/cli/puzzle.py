"""`lmzoo puzzle`: models with one fault each, which the user looks for."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import click

from lmzoo import humanize, terminal
from lmzoo.cli.group import cli
from lmzoo.errors import ConfigError
from lmzoo.puzzles import Puzzle, puzzle, puzzles


@cli.command("puzzle", short_help="Find the fault in a model whose loss falls.")
@click.argument("number", type=int, required=False)
@click.option("--out", type=click.Path(path_type=Path), help="The file to write.  [default: puzzle_N.py]")
@click.option("--hint", metavar="K", type=int, is_flag=False, flag_value=1, help="Print the first hint, or the K-th.")
@click.option("--answer", is_flag=True, help="Print what is wrong, and which check finds it.")
def puzzle_command(number: int | None, out: Path | None, hint: int | None, answer: bool) -> None:
    """Find the fault in a model whose loss falls; without a number, list the puzzles.

    A puzzle is a model in one Python file with one fault; most of the faults were found in published code. Read the
    file and change it until `lmzoo check` passes.

    \b
    lmzoo puzzle                 lists all puzzles, from easy to hard
    lmzoo puzzle 3               writes puzzle_3.py, and trains it for some seconds
    lmzoo check puzzle_3.py      names the check that fails, or passes
    lmzoo puzzle 3 --hint        prints the first hint; --hint 2 prints the second
    lmzoo puzzle 3 --answer      prints what is wrong
    """
    if number is None:
        if out is not None or hint is not None or answer:
            raise ConfigError("the number of a puzzle is missing, as in: lmzoo puzzle 1")
        _print_list()
        return
    found = puzzle(number)
    if (out is not None) + (hint is not None) + answer > 1:
        raise ConfigError("only one of --out, --hint and --answer can be given")
    if hint is not None:
        _print_hint(found, hint)
    elif answer:
        click.echo(terminal.reflow(found.answer))
        if found.similar:
            click.echo(f"\nA published fault of this kind: {found.similar}")
    else:
        _write(found, out or Path(f"puzzle_{number}.py"))


def _print_list() -> None:
    console = terminal.results_console()
    rows = [[str(one.number), one.title, one.difficulty] for one in puzzles()]
    headings = ("number", "title", "difficulty")
    console.print(terminal.table(headings, rows, width=console.width, left=headings[1:], drop=("difficulty",)))
    click.echo("lmzoo puzzle NUMBER begins one", err=True)


def _print_hint(found: Puzzle, place: int) -> None:
    if not 1 <= place <= len(found.hints):
        raise ConfigError(f"hint={place} must be a number from 1 to {len(found.hints)}")
    click.echo(terminal.reflow(found.hints[place - 1]))
    following = f"--hint {place + 1}" if place < len(found.hints) else "--answer"
    click.echo(f"next: lmzoo puzzle {found.number} {following}", err=True)


def _write(found: Puzzle, path: Path) -> None:
    """Write the file of the puzzle, and show that its loss falls."""
    from lmzoo import registry
    from lmzoo.puzzles.training import DATA, falling_loss
    from lmzoo.storage import atomic

    if path.suffix != ".py":
        raise ConfigError(f"out={path} must be the name of a Python file, such as puzzle_{found.number}.py")
    if os.path.lexists(path):
        raise ConfigError(f"out={path} exists: it is left as it is")
    atomic.write_file(path, found.broken)
    registry.load_plugin(str(path))
    click.echo(f"puzzle {found.number}, {found.difficulty}: {found.title}")
    click.echo(f"wrote {humanize.line(str(path))}; training it on {DATA}:")
    for step, loss in falling_loss(found.family):
        click.echo(f"  step {step:3}  loss {humanize.loss(loss)}")
    again = humanize.line(shlex.join(["lmzoo", "check", str(path)]))
    click.echo(f"The loss falls, and one thing in the file is wrong. try: {again}")
