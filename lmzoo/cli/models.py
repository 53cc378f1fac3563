"""Commands about models: list and check."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

import lmzoo
from lmzoo import humanize, registry, terminal
from lmzoo.cli.complete import complete_checks, complete_models
from lmzoo.cli.group import cli, plugin_option, print_json
from lmzoo.errors import InputError

KINDS = ("classic", "attention", "linear", "hybrid")  # of families, in the order of the table
GROWTHS = ("none", "constant", "logarithmic", "linear")  # of decoding states
VOCAB_SIZE = 65  # vocabulary of a typical character tokenizer, for presets without vocab_size


@cli.command("list", short_help="List families of models, or the presets of a family.")
@click.argument("pattern", default="*", shell_complete=complete_models)
@click.option("--state", type=click.Choice(GROWTHS), help="Growth of the decoding state.")
@click.option("--extrapolates/--no-extrapolates", default=None, help="Works beyond its training context, or not.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list of names.")
@plugin_option
def list_command(pattern: str, state: str | None, extrapolates: bool | None, as_json: bool) -> None:
    """List families of models, or the presets of a family with their sizes.

    A family's state is what it keeps of the text while it generates: none, a constant size, or a size that
    grows with the logarithm of the text or linearly with it.

    \b
    lmzoo list
    lmzoo list gpt2                the presets of gpt2, with parameters and context
    lmzoo list '*.1m'              all presets of this name
    lmzoo list --state constant    families whose memory does not grow with the text
    """
    facts = {"state_growth": state, "extrapolates": extrapolates}
    wanted = {fact: value for fact, value in facts.items() if value is not None}
    names = lmzoo.list_models(pattern, **wanted)
    if pattern in names:  # a family: its presets too
        names += [name for name in lmzoo.list_models(f"{pattern}.*", **wanted) if name not in names]
    if as_json:
        print_json(names)
    elif not names:
        click.echo(f"no model matches {pattern!r}; lmzoo list shows all", err=True)
    elif pattern == "*":
        _print_families([name for name in names if "." not in name])
    else:
        _print_models(names)


def _print_families(names: list[str]) -> None:
    """Print what registry files say of each family, which is quick: no model is imported."""
    headings = ("kind", "family", "year", "state", "beyond context", "summary")
    facts = {name: registry.families()[name].facts for name in names}

    def place(name: str) -> tuple[int, int, str]:
        kind = facts[name].get("kind")
        return KINDS.index(kind) if kind in KINDS else len(KINDS), int(facts[name].get("year", 0)), name

    rows = []
    for name in sorted(names, key=place):
        extrapolates = facts[name].get("extrapolates")
        beyond = "" if extrapolates is None else "yes" if extrapolates else "no"
        kind, year, growth, summary = (
            str(facts[name].get(fact, "")) for fact in ("kind", "year", "state_growth", "summary")
        )
        rows.append([kind, name, year, growth, beyond, summary])
    console = terminal.results_console()
    table = terminal.table(
        headings,
        rows,
        width=console.width,
        left=headings,
        wrapped="summary",
        drop=("beyond context", "year", "kind", "summary", "state"),
    )
    console.print(table)
    click.echo("lmzoo list FAMILY shows its presets, lmzoo show NAME all about one model", err=True)


def _print_models(names: list[str]) -> None:
    """Print the size of each model; counting imports torch, but makes no weights."""
    headings = ("model", "parameters", "context", "state bytes", "source")
    families = registry.families()
    rows = []
    for name in names:
        family, preset = registry.split_name(name)
        settings: dict[str, Any] = {} if preset and "vocab_size" in preset.model else {"vocab_size": VOCAB_SIZE}
        model = lmzoo.create_model(name, device="meta", **settings)
        T = model.config.context_length
        text = preset.source if preset else f"defaults: {families[family.name].facts.get('summary', '')}"
        size = humanize.count(model.state_bytes(T))
        rows.append([name, humanize.count(model.num_params()), f"{T:,}", size, text])
    console = terminal.results_console()
    table = terminal.table(
        headings,
        rows,
        width=console.width,
        left=("model", "source"),
        wrapped="source",
        drop=("source", "state bytes", "context"),
    )
    console.print(table)
    note = f"parameters with a vocabulary of {VOCAB_SIZE} unless a preset has its own; state of one row at full context"
    click.echo(note, err=True)


@cli.command(short_help="Check a model: causality, caches, losses, gradients, saving.")
@click.argument("targets", nargs=-1, shell_complete=complete_models)
@click.option("--only", multiple=True, metavar="CHECK", shell_complete=complete_checks, help="Run only this check.")
@click.option("--thorough", is_flag=True, help="More random shapes, and all variants in the large form.")
@click.option("--seed", default=0, show_default=True, help="Seed of the random shapes.")
@click.option("--coord", is_flag=True, help="Print the coordinate check instead: activations against the width.")
@click.option("--explain", metavar="CHECK", shell_complete=complete_checks, help="Print what a check does, and end.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON (a list for several models).")
@plugin_option
def check(
    targets: tuple[str, ...],
    only: tuple[str, ...],
    thorough: bool,
    seed: int,
    coord: bool,
    explain: str | None,
    as_json: bool,
) -> None:
    """Check a model: causality, caches, masks, losses, gradients, saving.

    A TARGET is a registered name, a Python file that registers models, or a run; without one, every registered family
    is checked. The model of a run is also checked itself, with its weights and sizes (checks named own_...). The exit
    code is 0 if all checks pass, 1 if one fails, and 2 for bad input.

    --coord gives no verdict: for each role of parameters it prints the root mean square of the outputs of its modules,
    at widths from 64 to 512, with initial weights and after four steps of Adam, and the exponent p of a fitted width^p.

    \b
    lmzoo check gpt2
    lmzoo check my_mixer.py --thorough
    lmzoo check runs/gpt2.tiny --only decoding
    lmzoo check --explain long_causality
    lmzoo check llama --coord
    """
    import torch

    from lmzoo.conformance import Result, check_model, explanation
    from lmzoo.conformance.target import subjects

    if explain is not None:
        if as_json or coord:
            raise click.UsageError(f"--explain prints a text: leave out {'--json' if as_json else '--coord'}")
        click.echo(explanation(explain))
        return
    if coord and (only or thorough):
        raise click.UsageError(f"--coord runs no checks: leave out {'--only' if only else '--thorough'}")
    torch.set_num_threads(1)  # the models are tiny: more threads cost more than they save

    if coord:
        with_a_width = [name for name in registry.families() if registry.model_class(name).config_class.scaled]
        names = [name for target in targets or with_a_width for name in _named(target)]
        _print_coordinates(names, seed, as_json)
        return

    def show_result(result: Result) -> None:
        mark = click.style("ok  ", fg="green") if result.passed else click.style("FAIL", fg="red", bold=True)
        click.echo(f"{mark}  {result.name.ljust(19)} {humanize.plain(result.shown)}")

    models = [(target, subject) for target in targets or registry.families() for subject in subjects(target)]
    reports = []
    for target, model in models:
        if not as_json:
            title = model if isinstance(model, str) else f"{model.family} ({humanize.line(target)})"
            click.secho(title, bold=True)
        listener = None if as_json else show_result
        options = {"listener": listener, "thorough": thorough, "seed": seed}
        reports.append(check_model(model, only=only or None, processes=min(2, os.cpu_count() or 1), **options))
        if not as_json:
            click.echo(str(reports[-1]).splitlines()[-1])
    if as_json:
        print_json([r.to_dict() for r in reports] if len(reports) > 1 else reports[0].to_dict())
    sys.exit(0 if all(report.passed for report in reports) else 1)


def _named(target: str) -> list[str]:
    """Returns the names of the models that a target of `check --coord` stands for."""
    from lmzoo.conformance.target import subjects

    names = subjects(target)
    if not all(isinstance(name, str) for name in names):
        raise InputError(f"{target} is a run, whose width is fixed: --coord is for registered names")
    return [str(name) for name in names]


def _print_coordinates(names: list[str], seed: int, as_json: bool) -> None:
    """Print the coordinate check of each model."""
    from lmzoo.conformance.coordinates import STEPS, coordinate_check

    results = []
    for name in names:
        result = coordinate_check(name, seed=seed)
        results.append(result)
        if not as_json:
            headings = ("role", "when", *(f"{width:,}" for width in result["widths"]), "exponent")
            rows = []
            for role, found in result["roles"].items():
                for when, words in (("start", "at the start"), ("end", f"after {STEPS} steps")):
                    power = found[f"{when}_exponent"]
                    cells = [f"{value:.3g}" for value in found[when]]
                    rows.append([role, words, *cells, humanize.MISSING if power is None else f"{power:+.2f}"])
            console = terminal.results_console()
            click.secho(name, bold=True)
            console.print(terminal.table(headings, rows, width=console.width, left=headings[:2]))
    if as_json:
        print_json(results if len(results) > 1 else results[0])
