"""Commands about models: list, show, check; and shell completion."""

from __future__ import annotations

import json
import sys

import click

import lmzoo
from lmzoo import configs, registry
from lmzoo.cli.group import cli, plugin_option


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
@click.option("--vocab-size", default=65, show_default=True, help="Vocabulary size for the counts.")
@plugin_option
def show(name: str, vocab_size: int) -> None:
    """Show a model: its card, its settings, its size and costs.

    \b
    lmzoo show mamba
    lmzoo show gpt2.124m --vocab-size 50257
    """
    family, preset = registry.split_name(name)
    model = lmzoo.create_model(name, device="meta", vocab_size=vocab_size)  # counting needs no weights
    T = model.config.context_length
    if family.card:
        from rich.console import Console
        from rich.markdown import Markdown

        Console().print(Markdown(family.card))
        click.echo()
    facts = {
        "parameters": f"{model.num_params():,} ({model.num_params(embedding=False):,} without embeddings)",
        "FLOPs per token": f"{model.flops_per_token(T):,.0f} forward, in a sequence of {T}",
        "decoding state": f"{model.state_bytes(T):,} bytes a row at {T} tokens ({model.traits.state_growth})",
        "presets": ", ".join(family.presets) or "none",
    }
    if preset:
        facts["source"] = preset.source
    click.echo("\n".join(f"{fact + ':':17}{value}" for fact, value in facts.items()) + "\n")
    click.echo(configs.dump_toml({"model": configs.to_table(model.config), "train": registry.recipe(name)}))


@cli.command()
@click.argument("targets", nargs=-1)
@click.option("--only", multiple=True, metavar="CHECK", help="Run only this check.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON (a list for several models).")
@plugin_option
def check(targets: tuple[str, ...], only: tuple[str, ...], as_json: bool) -> None:
    """Check a model: causality, caches, masks, losses, gradients, saving.

    A TARGET is a registered name, a Python file that registers models, or a run; without one, every registered family
    is checked. Exits 0 when all passes, 1 when something fails.

    \b
    lmzoo check gpt2
    lmzoo check my_mixer.py
    lmzoo check runs/gpt2.tiny --only decoding
    """
    import torch

    from lmzoo.conformance import Result, check_model
    from lmzoo.conformance.target import subjects

    torch.set_num_threads(1)  # the models are tiny: more threads cost more than they save

    def show_result(result: Result) -> None:
        mark = click.style("ok  ", fg="green") if result.passed else click.style("FAIL", fg="red", bold=True)
        click.echo(f"{mark}  {result.name.ljust(18)} {result.saw}")

    models = [subject for target in targets or registry.families() for subject in subjects(target)]
    reports = []
    for model in models:
        if not as_json:
            click.secho(model if isinstance(model, str) else f"{model.family} ({targets[0]})", bold=True)
        reports.append(check_model(model, only=only or None, listener=None if as_json else show_result))
        if not as_json:
            click.echo(str(reports[-1]).splitlines()[-1])
    if as_json:
        click.echo(json.dumps([r.to_dict() for r in reports] if len(reports) > 1 else reports[0].to_dict()))
    sys.exit(0 if all(report.passed for report in reports) else 1)


@cli.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that completes lmzoo's commands and options.

    \b
    lmzoo completion bash >> ~/.bashrc
    lmzoo completion fish > ~/.config/fish/completions/lmzoo.fish
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(cli, {}, "lmzoo", "_LMZOO_COMPLETE").source())
