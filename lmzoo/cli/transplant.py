"""The command transplant."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from lmzoo import configs, humanize
from lmzoo.cli.complete import complete_models
from lmzoo.cli.group import cli, plugin_option, print_json, suggestion, tokenizer_option
from lmzoo.errors import ConfigError, LmzooError

if TYPE_CHECKING:
    from lmzoo.transplant.operation import Transplant


@cli.command(short_help="Replace mixers of a trained model by those of another family.")
@click.argument("source", metavar="SRC")
@click.argument("target", metavar="DST", type=click.Path(path_type=Path))
@click.option("--layers", metavar="N,N,...", help="The layers whose mixers are replaced, counted from 0.")
@click.option("--to", metavar="FAMILY", shell_complete=complete_models, help="The family of the new mixers.")
@click.option(
    "--init",
    type=click.Choice(["qkv", "new"]),
    default="qkv",
    show_default=True,
    help="qkv: the new mixers take over projections of queries, keys, values and output that fit. new: none.",
)
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=1337, show_default=True, help="Of new weights.")
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="A setting of the source that changes no shape, such as window=512; FAMILY.KEY=VALUE: of the new mixers.",
)
@click.option("--json", "as_json", is_flag=True, help="Print what was replaced as one JSON object.")
@tokenizer_option
@plugin_option
def transplant(
    source: str,
    target: Path,
    layers: str | None,
    to: str | None,
    init: Literal["qkv", "new"],
    seed: int,
    overrides: tuple[str, ...],
    as_json: bool,
    tokenizer: Path | None,
) -> None:
    """Replace the mixers of some layers of a trained model by mixers of another family.

    SRC is a run, a checkpoint or a saved model with a decoder frame; DST is a new folder. Norms, feed-forward layers,
    embeddings and all other layers are copied bit by bit. The new mixers have as many heads of the same width as the
    source, unless --set says otherwise; keys and values of fewer heads are repeated. lmzoo train --from DST heals the
    model, see docs/transplant.md.

    \b
    lmzoo transplant runs/llama runs/mixed --layers 1,3 --to gated_deltanet
    lmzoo transplant runs/llama runs/mixed --layers 1,3 --to llama --set llama.window=64
    lmzoo transplant runs/llama runs/short --set window=512
    """
    from lmzoo.runs.saved import load_model_and_tokenizer
    from lmzoo.transplant.operation import transplant as run

    if os.path.lexists(target):
        raise ConfigError(f"DST={target} exists: name a new folder")
    settings = configs.parse_overrides(overrides)
    model, found = load_model_and_tokenizer(source, tokenizer)
    result = run(model, layers=_numbers(layers), to=to, init=init, seed=seed, settings=settings)
    result.model.save(target, tokenizer=found)
    if as_json:
        print_json({**result.to_dict(), "path": str(target)})
        return
    _print(result, source, target)


def _numbers(text: str | None) -> list[int]:
    """Returns the numbers of a list such as "3,5,7"."""
    parts = [] if text is None else [part.strip() for part in text.split(",")]
    for part in parts:
        if not (part.isascii() and part.isdigit() and len(part) < 6):
            raise ConfigError(f"--layers {text!r}: {part!r} must be the number of a layer, as in 3,5,7")
    return [int(part) for part in parts]


def _text_of(source: str) -> list[str]:
    """Returns the option that names the text of a run; none for a saved model, and for a text that is a pattern."""
    from lmzoo.runs.directory import own_data
    from lmzoo.runs.saved import is_run, run_of

    run = run_of(source)
    with suppress(LmzooError):
        return ["--data", own_data(run)] if is_run(run) else []
    return []


def _print(result: Transplant, source: str, target: Path) -> None:
    for each in result.replaced:
        taken = f"takes over {', '.join(each.taken)}" if each.taken else "takes over nothing"
        lost = f"; lost: {', '.join(each.lost)}" if each.lost else ""
        click.echo(f"layer {each.layer}: {each.old} -> {each.new} {taken}{lost}")
    numbers: dict[str, Any] = {"kept": result.kept, "taken over": result.taken, "new": result.new}
    total = result.model.num_params()
    shares = ", ".join(f"{value:,} {name} ({value / total:.1%})" for name, value in numbers.items())
    click.echo(f"parameters: {shares}")
    again = suggestion("train", "--from", str(target), "--teacher", source, *_text_of(source))
    click.echo(f"model: {humanize.line(str(target))}   try: {again}")
