"""`lmzoo show`: everything about one model, and its settings with their meaning."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

import lmzoo
from lmzoo import configs, registry, targets, terminal
from lmzoo.cli.complete import complete_models
from lmzoo.cli.group import cli, plugin_option, print_json, set_option

FACT_COLUMNS = 17  # width of the names of facts
QUIET_SECONDS = 2.0  # a measurement that takes longer says what it does

if TYPE_CHECKING:
    from lmzoo.matching import Match
    from lmzoo.model import ModelConfig
    from lmzoo.train.config import ResolvedTrainConfig


@cli.command(short_help="Show a model: its card, size, costs, drawing and settings.")
@click.argument("name", shell_complete=complete_models)
@click.option(
    "--vocab-size",
    default=65,
    show_default=True,
    type=click.IntRange(1, 1 << 32),
    help="Vocabulary size for the counts and the drawing.",
)
@click.option("--match", metavar="MEASURE=NUMBER", help="Choose the widths for a budget, e.g. params=1M or flops=2M.")
@click.option("--settings", "only_settings", is_flag=True, help="Print only the settings, with their meaning.")
@click.option("--open", "open_page", is_flag=True, help="Open the page of its family in a browser.")
@click.option("--ops", "only_ops", is_flag=True, help="Measure the forms of its sequence algorithms on this machine.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print the counts, the settings and the drawing (or --ops) as JSON."
)
@set_option
@plugin_option
def show(
    name: str,
    vocab_size: int,
    match: str | None,
    only_settings: bool,
    open_page: bool,
    only_ops: bool,
    as_json: bool,
    overrides: tuple[str, ...],
) -> None:
    """Show a model: its card, size and costs, a drawing of its architecture, all settings that it is trained with.

    NAME may be a Python file that registers a model.

    In the drawing, a frame of dashes holds blocks that are repeated, with the costs of one of them, and
    "+-> A -> B ->+" is a branch whose result is added to its input. A budget is in params, non_embedding, active
    (parameters), flops (per token) or state (bytes).

    --open shows the same facts of the family, with its equations and blocks drawn, and its source, in a browser: the
    page of the documentation site if `scripts/docs` has built it, or else a file made now. Its path is printed.

    --ops prints for each recurrence the time of the loop that defines it, of its fast form and, on a GPU, of a kernel
    of flash-linear-attention if one fits, forward and backward, at lengths from 1 to 2,048, and which of them the model
    takes. It takes a minute or more.

    \b
    lmzoo show mamba
    lmzoo show gpt2.124m --vocab-size 50257
    lmzoo show llama --match params=1M
    lmzoo show gpt2.tiny --set n_layers=4 --settings
    lmzoo show mamba --open
    lmzoo show mamba.tiny --ops
    """
    from lmzoo import drawing
    from lmzoo.gallery.facts import Facts
    from lmzoo.gallery.words import in_words
    from lmzoo.matching import matched_config
    from lmzoo.runs.spec import make_spec

    flags = {"--settings": only_settings, "--open": open_page, "--ops": only_ops}
    if len(chosen := [flag for flag, given in flags.items() if given]) > 1:
        raise click.UsageError(f"{chosen[0]} and {chosen[1]} cannot be combined: each prints something else")
    if as_json and chosen not in ([], ["--ops"]):
        raise click.UsageError(f"--json cannot be combined with {chosen[0]}: --json alone prints all settings")
    name = targets.model_name(name)
    family, preset = registry.split_name(name)
    if open_page:
        from lmzoo.gallery.opening import open_page as open_in_browser

        click.echo(open_in_browser(family.name))
        return
    spec = make_spec(name, data="any text", overrides=configs.parse_overrides(overrides))
    settings: dict[str, Any] = {**spec.config, "vocab_size": vocab_size}
    matched = None
    if match is not None:
        matched = matched_config(name, match, **settings)
        settings = configs.to_dict(matched.config)
    if only_ops:
        _print_ops(name, dict(settings), as_json)
        return
    model = lmzoo.create_model(name, device="meta", **settings)  # counting needs no weights
    T, recipe, drawn = model.config.context_length, spec.train.resolved(), drawing.draw(model)
    if only_settings:
        _print_settings(model.config, recipe)
        return
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
        tables = {"model": configs.to_dict(model.config), "train": configs.to_dict(recipe), "drawing": drawn.to_dict()}
        print_json({"name": name, **counts, "state_growth": growth, "match": met, **tables}, indent=2)
        return
    if family.card:
        from rich.markdown import Markdown

        terminal.results_console(terminal.reading_columns()).print(Markdown(family.card))
        click.echo()
    if family.papers:
        click.echo(family.papers)
    total, without, active, flops, state = counts.values()
    facts = {
        "parameters": f"{total:,} ({without:,} without embeddings)",
        "active": f"{active:,} parameters in the prediction of one token" if active < total else "",
        "FLOPs per token": f"{flops:,.0f} forward, in a sequence of {T}",
        "decoding state": f"{state:,} bytes a row at {T} tokens ({model.traits.state_growth})",
        "presets": ", ".join(family.presets) or "none",
        "tokenizer": spec.tokenizer,
        "source": preset.source if preset else "",
        "matched": _described(match, matched) if match and matched else "",
        **in_words(Facts(family, name, model)),
    }
    lines = (f"{fact + ':':{FACT_COLUMNS}}{value}" for fact, value in facts.items() if value)
    click.echo("\n".join(terminal.reflow(line, FACT_COLUMNS) for line in lines) + "\n")
    click.echo(drawing.text(drawn, terminal.reading_columns()))
    click.echo(configs.dump_toml({"model": configs.to_table(model.config), "train": configs.to_table(recipe)}))


def _print_ops(name: str, settings: dict[str, Any], as_json: bool) -> None:
    """Measure the sequence algorithms of a model with these settings, and print their tables."""
    from lmzoo.bench import ops
    from lmzoo.bench.table import ops_tables
    from lmzoo.hardware import default_device

    settings["context_length"] = max(ops.LENGTHS)
    model = lmzoo.create_model(name, device=default_device(), **settings)
    began = time.monotonic()

    def show_progress(text: str) -> None:
        if time.monotonic() - began > QUIET_SECONDS:
            click.echo(f"measuring {text}", err=True)

    result = {"target": name, **ops.bench_ops(model, ops.LENGTHS, progress=show_progress)}
    if as_json:
        print_json(result)
    elif result["results"]:
        console = terminal.results_console()
        console.print(ops_tables(name, result, console.width))
    else:
        click.echo(f"{name} has no recurrence: there is nothing to choose")


def _described(asked: str, match: Match) -> str:
    """Describe the distance from the target, and the change in the proportions of the model."""
    fields = [*match.config.scaled]
    moved = f"; {fields[-1]} / {fields[0]} changed by a factor of {match.ratio:.2f}" if len(fields) > 1 else ""
    return f"{asked} met to {100 * match.error:+.2f} %{moved}"


def _print_settings(model: ModelConfig, recipe: ResolvedTrainConfig) -> None:
    """Print every setting of the model and of its training: its value here, its default, its meaning."""
    from lmzoo.settings import describe, values
    from lmzoo.train.config import TrainConfig

    headings = ("setting", "value", "default", "type", "meaning")
    console = terminal.results_console()
    for title, kind, config in (("model", type(model), model), ("train", TrainConfig, recipe)):
        found = values(config)
        rows = [[each.name, found[each.name], each.default, each.type, each.meaning] for each in describe(kind)]
        table = terminal.table(
            headings,
            rows,
            width=console.width,
            left=headings,
            wrapped="meaning",
            drop=("type", "default", "meaning"),
        )
        console.print(f"[{title}]", markup=False)
        console.print(table)
        console.print()
