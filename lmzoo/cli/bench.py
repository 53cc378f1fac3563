"""`lmzoo bench`: how fast a model is here."""

from __future__ import annotations

import json

import click

import lmzoo
from lmzoo import configs, registry
from lmzoo.cli.group import cli, plugin_option, set_option
from lmzoo.errors import InputError

VOCAB_SIZE = 65  # of characters, where neither the preset nor --set says another


@cli.group()
def bench() -> None:
    """How fast a model is, against what this machine can do.

    \b
    lmzoo bench decode gpt2.124m
    lmzoo bench train gpt2.10m
    lmzoo bench loss
    """


@bench.command("decode")
@click.argument("target", default="gpt2.10m")
@click.option("--rows", default=1, show_default=True, type=click.IntRange(1), help="Sequences decoded together.")
@click.option("--tokens", default=64, show_default=True, type=click.IntRange(1), help="Tokens a row in each round.")
@click.option("--repeats", default=5, show_default=True, type=click.IntRange(1), help="Rounds; the median counts.")
@click.option("--threads", default=2, show_default=True, type=click.IntRange(1), help="Processor threads.")
@click.option("--compiled/--no-compiled", default=True, show_default=True, help="Compiled copies too: a minute more.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
@set_option
@plugin_option
def decode(
    target: str,
    rows: int,
    tokens: int,
    repeats: int,
    threads: int,
    compiled: bool,
    as_json: bool,
    overrides: tuple[str, ...],
) -> None:
    """Tokens per second of a model in each form of its weights, and how near that is to the memory's bandwidth.

    TARGET is a registered name (with fresh weights, as fast as trained ones) or a run.

    \b
    lmzoo bench decode gpt2.124m
    lmzoo bench decode gpt2.10m --rows 16 --no-compiled
    lmzoo bench decode runs/mamba.tiny --json
    """
    from pathlib import Path

    import torch

    from lmzoo.bench import bench_decode, summary

    torch.set_num_threads(threads)
    if Path(target).is_dir():
        if overrides:
            raise InputError(f"{target} is a run: --set is for registered names")
        model = lmzoo.load_model(target)
    else:
        _, preset = registry.split_name(target)
        settings = configs.parse_overrides(overrides)
        if not (preset and "vocab_size" in preset.model):
            settings.setdefault("vocab_size", VOCAB_SIZE)
        model = lmzoo.create_model(target, **settings)
    if compiled:
        click.echo("compiling first, up to a minute a copy (--no-compiled leaves them out)", err=True)
    figures = bench_decode(model.eval(), rows=rows, tokens=tokens, repeats=repeats, compiled=compiled)
    result = {"target": target, **figures}
    click.echo(json.dumps(result) if as_json else f"{target}: {summary(result)}")


@bench.command("train")
@click.argument("target", default="gpt2.10m")
@click.option("--batch-size", type=click.IntRange(1), help="Windows in a step.  [default: the recipe's]")
@click.option("--repeats", default=5, show_default=True, type=click.IntRange(1), help="Rounds; the median counts.")
@click.option("--threads", default=2, show_default=True, type=click.IntRange(1), help="Processor threads.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
@set_option
@plugin_option
def train(
    target: str, batch_size: int | None, repeats: int, threads: int, as_json: bool, overrides: tuple[str, ...]
) -> None:
    """Milliseconds a step of training in float32 and bf16, where they go, and how near that is to the machine's best.

    TARGET is a registered name. The steps are those of `lmzoo train` on random tokens, with the preset's recipe.

    \b
    lmzoo bench train gpt2.10m
    lmzoo bench train gpt2 --batch-size 12 --set context_length=64 --set d_model=128
    lmzoo bench train mamba.10m --set compile=true --json
    """
    import torch
    from rich.console import Console

    from lmzoo.bench.table import train_tables
    from lmzoo.bench.train import bench_train
    from lmzoo.runs.spec import apply_settings
    from lmzoo.train.config import TrainConfig

    torch.set_num_threads(threads)
    _, preset = registry.split_name(target)
    settings = configs.parse_overrides(overrides)
    vocab_size = settings.pop("vocab_size", (preset.model if preset else {}).get("vocab_size", VOCAB_SIZE))
    model_settings, train_settings = apply_settings(target, settings)
    if batch_size is not None:
        train_settings["batch_size"] = batch_size
    recipe = {name: value for name, value in registry.recipe(target).items() if name != "tokenizer"}
    config = configs.build(TrainConfig, {**recipe, **train_settings})
    torch.manual_seed(config.seed)
    model = lmzoo.create_model(target, **model_settings, vocab_size=vocab_size)
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    result = {"target": target, **bench_train(model, config, repeats=repeats)}
    if as_json:
        click.echo(json.dumps(result))
    else:
        Console().print(train_tables(target, result))


@bench.command("loss")
@click.option("--vocab-size", default=50257, show_default=True, type=click.IntRange(1), help="Tokens to choose from.")
@click.option("--tokens", default=8192, show_default=True, type=click.IntRange(1), help="Positions in a step.")
@click.option("--d-model", default=768, show_default=True, type=click.IntRange(1), help="Width of the features.")
@click.option("--repeats", default=3, show_default=True, type=click.IntRange(1), help="Rounds; the median counts.")
@click.option("--threads", default=2, show_default=True, type=click.IntRange(1), help="Processor threads.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def loss(vocab_size: int, tokens: int, d_model: int, repeats: int, threads: int, as_json: bool) -> None:
    """Time and memory of a large vocabulary's loss, with all logits at once and in chunks.

    \b
    lmzoo bench loss
    lmzoo bench loss --vocab-size 8000 --d-model 384
    """
    import torch
    from rich.console import Console

    from lmzoo.bench.loss import bench_loss
    from lmzoo.bench.table import loss_table

    torch.set_num_threads(threads)
    result = bench_loss(vocab_size, tokens, d_model, repeats)
    if as_json:
        click.echo(json.dumps(result))
    else:
        Console().print(loss_table(result))
