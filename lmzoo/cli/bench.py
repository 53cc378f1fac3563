"""`lmzoo bench`: the speed of a model on this machine."""

from __future__ import annotations

import os

import click

import lmzoo
from lmzoo import configs, humanize, registry, terminal
from lmzoo.cli.group import cli, plugin_option, print_json, set_option
from lmzoo.errors import InputError

VOCAB_SIZE = 65  # vocabulary of a typical character tokenizer, for presets without vocab_size


@cli.group(short_help="Measure the speed of a model beside the machine's best.")
def bench() -> None:
    """Measure the speed of a model, and compare it with the best that this machine can do.

    \b
    lmzoo bench decode gpt2.124m
    lmzoo bench train gpt2.10m
    lmzoo bench loss
    """


@bench.command("decode", short_help="Measure tokens per second for each format of the weights.")
@click.argument("target", default="gpt2.10m")
@click.option(
    "--rows", default=1, show_default=True, type=click.IntRange(1, 1 << 20), help="Sequences decoded together."
)
@click.option(
    "--tokens", default=64, show_default=True, type=click.IntRange(1, 1 << 24), help="Tokens per sequence and round."
)
@click.option(
    "--repeats", default=5, show_default=True, type=click.IntRange(1, 1 << 24), help="Rounds; the median counts."
)
@click.option("--threads", default=2, show_default=True, type=click.IntRange(1, 1024), help="CPU threads.")
@click.option(
    "--compiled/--no-compiled",
    default=True,
    show_default=True,
    help="Also measure compiled copies (a minute more).",
)
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
    """Measure tokens per second for each format of the weights, and their share of the memory bandwidth.

    TARGET is a registered name (with random weights, which are as fast as trained ones) or a run.

    \b
    lmzoo bench decode gpt2.124m
    lmzoo bench decode gpt2.10m --rows 16 --no-compiled
    lmzoo bench decode runs/mamba.tiny --json
    """
    import torch

    from lmzoo.bench import bench_decode, summary

    torch.set_num_threads(threads)
    if os.path.isdir(target):
        if overrides:
            raise InputError(f"{target} is a run: --set is for registered names")
        model = lmzoo.load_model(target)
    else:
        _, preset = registry.split_name(target)
        settings = configs.parse_overrides(overrides)
        if not (preset and "vocab_size" in preset.model):
            settings.setdefault("vocab_size", VOCAB_SIZE)
        model = lmzoo.create_model(target, **settings)
    if compiled and model.num_params():
        click.echo("compiling first, up to a minute for each copy (--no-compiled skips this)", err=True)
    figures = bench_decode(model.eval(), rows=rows, tokens=tokens, repeats=repeats, compiled=compiled)
    result = {"target": target, **figures}
    if as_json:
        print_json(result)
    else:
        click.echo(f"{humanize.line(target)}: {summary(result)}")


@bench.command("train", short_help="Measure training steps in float32 and bf16.")
@click.argument("target", default="gpt2.10m")
@click.option("--batch-size", type=click.IntRange(1, 1 << 24), help="Sequences in a step.  [default: the recipe's]")
@click.option(
    "--repeats", default=5, show_default=True, type=click.IntRange(1, 1 << 24), help="Rounds; the median counts."
)
@click.option("--threads", default=2, show_default=True, type=click.IntRange(1, 1024), help="CPU threads.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
@set_option
@plugin_option
def train(
    target: str, batch_size: int | None, repeats: int, threads: int, as_json: bool, overrides: tuple[str, ...]
) -> None:
    """Measure training steps in float32 and bf16: milliseconds, time of each phase, share of the best matrix product.

    TARGET is a registered name. The steps are the same as in `lmzoo train`, on random tokens, with the preset's recipe.

    \b
    lmzoo bench train gpt2.10m
    lmzoo bench train gpt2 --batch-size 12 --set context_length=64 --set d_model=128
    lmzoo bench train mamba.10m --set compile=true --json
    """
    import torch

    from lmzoo.bench.table import train_tables
    from lmzoo.bench.train import bench_train
    from lmzoo.hardware import default_device
    from lmzoo.runs.spec import make_spec

    torch.set_num_threads(threads)
    _, preset = registry.split_name(target)
    settings = configs.parse_overrides(overrides)
    vocab_size = settings.pop("vocab_size", (preset.model if preset else {}).get("vocab_size", VOCAB_SIZE))
    if batch_size is not None:
        settings["train.batch_size"] = batch_size
    spec = make_spec(target, data="random tokens", overrides=settings)
    generator = torch.Generator().manual_seed(spec.train.seed)
    device = default_device()
    model = spec.make_model(vocab_size, generator=generator, device=device)
    result = {"target": target, **bench_train(model, spec.train, repeats=repeats, keep_freed_memory=True)}
    if as_json:
        print_json(result)
    else:
        console = terminal.results_console()
        console.print(train_tables(target, result, console.width))


@bench.command("loss", short_help="Measure the loss for a large vocabulary, whole and in chunks.")
@click.option(
    "--vocab-size", default=50257, show_default=True, type=click.IntRange(1, 1 << 24), help="Vocabulary size."
)
@click.option("--tokens", default=8192, show_default=True, type=click.IntRange(1, 1 << 24), help="Positions in a step.")
@click.option(
    "--d-model", default=768, show_default=True, type=click.IntRange(1, 1 << 24), help="Width of the features."
)
@click.option(
    "--repeats", default=3, show_default=True, type=click.IntRange(1, 1 << 24), help="Rounds; the median counts."
)
@click.option("--threads", default=2, show_default=True, type=click.IntRange(1, 1024), help="CPU threads.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def loss(vocab_size: int, tokens: int, d_model: int, repeats: int, threads: int, as_json: bool) -> None:
    """Measure time and memory of the loss for a large vocabulary, with all logits at once and in chunks.

    \b
    lmzoo bench loss
    lmzoo bench loss --vocab-size 8000 --d-model 384
    """
    import torch

    from lmzoo.bench.loss import bench_loss
    from lmzoo.bench.table import loss_table

    torch.set_num_threads(threads)
    result = bench_loss(vocab_size, tokens, d_model, repeats)
    if as_json:
        print_json(result)
    else:
        console = terminal.results_console()
        console.print(loss_table(result, console.width))
