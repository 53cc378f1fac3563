"""Commands about models: list, show, check; and shell completion."""

from __future__ import annotations

import json
import shutil
import sys
from typing import TYPE_CHECKING, Any

import click

import lmzoo
from lmzoo import configs, registry
from lmzoo.cli.group import cli, plugin_option

if TYPE_CHECKING:
    from lmzoo.matching import Match


@cli.command("list")
@click.argument("pattern", default="*")
@click.option("--state", type=click.Choice(["none", "constant", "linear"]), help="Growth of the decoding state.")
@click.option("--extrapolates/--no-extrapolates", default=None, help="Works beyond its training context, or not.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list of names.")
@plugin_option
def list_command(pattern: str, state: str | None, extrapolates: bool | None, as_json: bool) -> None:
    """List models: families and their presets.

    \b
    lmzoo list
    lmzoo list 'gpt*'
    lmzoo list --state constant      families whose memory does not grow with the text
    """
    wanted = {"state_growth": state, "extrapolates": extrapolates}
    names = lmzoo.list_models(pattern, **{fact: value for fact, value in wanted.items() if value is not None})
    if as_json:
        click.echo(json.dumps(names))
        return
    families = registry.families()
    width = max((len(name) for name in names), default=0)
    for name in names:
        family, _, preset = name.partition(".")
        text = families[family].presets[preset].source if preset else families[family].facts.get("summary", "")
        click.echo(f"{click.style(name.ljust(width), bold=not preset)}  {text}".rstrip())
    if not names:
        click.echo(f"no model matches {pattern!r}; lmzoo list shows all", err=True)


@cli.command()
@click.argument("name")
@click.option(
    "--vocab-size",
    default=65,
    show_default=True,
    type=click.IntRange(1, 1 << 32),
    help="Vocabulary size for the counts and the drawing.",
)
@click.option("--match", metavar="MEASURE=NUMBER", help="Choose the widths for a budget, e.g. params=1M or flops=2M.")
@click.option("--json", "as_json", is_flag=True, help="Print the counts, the settings and the drawing as JSON.")
@plugin_option
def show(name: str, vocab_size: int, match: str | None, as_json: bool) -> None:
    """Show a model: its card, size and costs, a drawing of its architecture, its settings.

    In the drawing, a frame of dashes holds blocks that are repeated, with the costs of one of them, and
    "+-> A -> B ->+" is a branch whose result is added to its input. A budget is in params, non_embedding, active
    (parameters), flops (per token) or state (bytes).

    \b
    lmzoo show mamba
    lmzoo show gpt2.124m --vocab-size 50257
    lmzoo show llama --match params=1M
    """
    from lmzoo import drawing
    from lmzoo.matching import matched_config

    family, preset = registry.split_name(name)
    settings: dict[str, Any] = {"vocab_size": vocab_size}
    matched = None
    if match is not None:
        matched = matched_config(name, match, **settings)
        settings = configs.to_dict(matched.config)
    model = lmzoo.create_model(name, device="meta", **settings)  # counting needs no weights
    T, recipe, drawn = model.config.context_length, registry.recipe(name), drawing.draw(model)
    counts = {
        "parameters": model.num_params(),
        "parameters_without_embeddings": model.num_params(embedding=False),
        "active_parameters": model.num_params(active=True),
        "flops_per_token": model.flops_per_token(T),
        "state_bytes": model.state_bytes(T),
    }
    if as_json:
        met = {"target": matched.target, "value": matched.value, "ratio": matched.ratio} if matched else None
        growth = model.traits.state_growth
        tables = {"model": configs.to_dict(model.config), "train": recipe, "drawing": drawn.to_dict()}
        click.echo(json.dumps({"name": name, **counts, "state_growth": growth, "match": met, **tables}, indent=2))
        return
    if family.card:
        from rich.console import Console
        from rich.markdown import Markdown

        Console().print(Markdown(family.card))
        click.echo()
    total, without, active, flops, state = counts.values()
    facts = {
        "parameters": f"{total:,} ({without:,} without embeddings)",
        "active": f"{active:,} parameters in the prediction of one token" if active < total else "",
        "FLOPs per token": f"{flops:,.0f} forward, in a sequence of {T}",
        "decoding state": f"{state:,} bytes a row at {T} tokens ({model.traits.state_growth})",
        "presets": ", ".join(family.presets) or "none",
        "source": preset.source if preset else "",
        "matched": _described(match, matched) if match and matched else "",
    }
    click.echo("\n".join(f"{fact + ':':17}{value}" for fact, value in facts.items() if value) + "\n")
    click.echo(drawing.text(drawn, shutil.get_terminal_size().columns))
    click.echo(configs.dump_toml({"model": configs.to_table(model.config), "train": recipe}))


def _described(asked: str, match: Match) -> str:
    """Describe the distance from the target, and the change in the proportions of the model."""
    fields = [*match.config.scaled]
    moved = f"; {fields[-1]} / {fields[0]} changed by a factor of {match.ratio:.2f}" if len(fields) > 1 else ""
    return f"{asked} met to {100 * match.error:+.2f} %{moved}"


@cli.command()
@click.argument("targets", nargs=-1)
@click.option("--only", multiple=True, metavar="CHECK", help="Run only this check.")
@click.option("--thorough", is_flag=True, help="More random shapes, and all variants in the large form.")
@click.option("--seed", default=0, show_default=True, help="Seed of the random shapes.")
@click.option("--explain", metavar="CHECK", help="Print what a check does, and end.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON (a list for several models).")
@plugin_option
def check(
    targets: tuple[str, ...], only: tuple[str, ...], thorough: bool, seed: int, explain: str | None, as_json: bool
) -> None:
    """Check a model: causality, caches, masks, losses, gradients, saving.

    A TARGET is a registered name, a Python file that registers models, or a run; without one, every registered family
    is checked. Of a run, its own model is checked too, with its weights and sizes (checks named own_...). The exit code
    is 0 if all checks pass and 1 if one fails.

    \b
    lmzoo check gpt2
    lmzoo check my_mixer.py --thorough
    lmzoo check runs/gpt2.tiny --only decoding
    lmzoo check --explain long_causality
    """
    import torch

    from lmzoo.conformance import Result, check_model, explanation
    from lmzoo.conformance.target import subjects

    if explain is not None:
        click.echo(explanation(explain))
        return
    torch.set_num_threads(1)  # the models are tiny: more threads cost more than they save

    def show_result(result: Result) -> None:
        mark = click.style("ok  ", fg="green") if result.passed else click.style("FAIL", fg="red", bold=True)
        click.echo(f"{mark}  {result.name.ljust(19)} {result.saw}")

    models = [subject for target in targets or registry.families() for subject in subjects(target)]
    reports = []
    for model in models:
        if not as_json:
            click.secho(model if isinstance(model, str) else f"{model.family} ({targets[0]})", bold=True)
        listener = None if as_json else show_result
        reports.append(check_model(model, only=only or None, listener=listener, thorough=thorough, seed=seed))
        if not as_json:
            click.echo(str(reports[-1]).splitlines()[-1])
    if as_json:
        click.echo(json.dumps([r.to_dict() for r in reports] if len(reports) > 1 else reports[0].to_dict()))
    sys.exit(0 if all(report.passed for report in reports) else 1)


@cli.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a shell script for tab completion of lmzoo's commands and options.

    \b
    lmzoo completion bash >> ~/.bashrc
    lmzoo completion fish > ~/.config/fish/completions/lmzoo.fish
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(cli, {}, "lmzoo", "_LMZOO_COMPLETE").source())
