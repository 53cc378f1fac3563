"""The commands `lmzoo train` and `lmzoo eval`."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import click

from lmzoo import configs, humanize, targets
from lmzoo.cli.complete import complete_data, complete_models
from lmzoo.cli.group import (
    cli,
    context_option,
    device_option,
    documents_option,
    plugin_option,
    print_json,
    set_option,
    suggestion,
    tokenizer_option,
    with_documents,
)
from lmzoo.errors import ConfigError


@cli.command(short_help="Train a model: a registered name, or one in a Python file.")
@click.argument("name", metavar="NAME|RUN", required=False, shell_complete=complete_models)
@click.option(
    "--from", "start", metavar="RUN|MODEL", help="Start from the weights and the tokenizer of a trained model."
)
@click.option("--teacher", metavar="RUN|MODEL", help="With --from: learn from the predictions of this model, too.")
@click.option(
    "--data",
    metavar="NAME|FILE|DIR|GLOB|hf:NAME",
    shell_complete=complete_data,
    help="The text to train on.  [default: pydocs]",
)
@click.option("--out", type=click.Path(path_type=Path), help="Run directory.  [default: runs/NAME]")
@click.option("--tokenizer", metavar="char|byte|bpe:N", help="Tokenizer.  [default: char; byte for hf:]")
@click.option("--config", "file", type=click.Path(), help="A TOML file with [model] and [train] settings.")
@click.option("--resume", is_flag=True, help="Continue from the newest checkpoint of RUN, or of the run directory.")
@click.option("--nproc", type=click.IntRange(min=1), help="Train on N processes of this machine, or GPUs.")
@click.option("--reshard", is_flag=True, help="Resume with another number of processes than before.")
@click.option("--logger", type=click.Choice(["tensorboard", "wandb"]), help="Also log there (each is an extra).")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
@device_option
@documents_option
@set_option
@plugin_option
def train(
    name: str | None,
    start: str | None,
    teacher: str | None,
    data: str | None,
    out: Path | None,
    tokenizer: str | None,
    file: str | None,
    resume: bool,
    nproc: int | None,
    reshard: bool,
    logger: str | None,
    as_json: bool,
    documents: str | None,
    overrides: tuple[str, ...],
) -> None:
    """Train a model: a registered name, or a Python file that registers one.

    Writes the run directory: config.toml, metrics.jsonl, tokenizer.json, validation.safetensors, checkpoints/,
    sample.txt. Ctrl-C saves a checkpoint; --resume RUN continues from it, bitwise as if the run had not stopped. A
    larger number of steps prolongs a run, also a finished one, if its schedule is constant, or wsd before its decay.

    \b
    lmzoo train gpt2.tiny --data pydocs --set steps=500
    lmzoo train llama --data novel.txt --tokenizer bpe:1000 --set window=64 --out runs/novel
    lmzoo train llama.1m --data hf:stories/,column=story --tokenizer bpe:4000      streamed, see docs/data.md
    lmzoo train --from runs/gpt2.tiny --data novel.txt        the trained model, on another text
    lmzoo train --from runs/mixed --teacher runs/llama        distillation, see docs/transplant.md
    lmzoo train --resume runs/gpt2.tiny                       with the settings of the run
    lmzoo train --resume runs/constant --set steps=2000
    lmzoo train gpt2.1m --nproc 2 --set parallel=fsdp        or torchrun --nproc-per-node 2 -m lmzoo train ...
    """
    from lmzoo.api import show_progress
    from lmzoo.distributed.launch import launch, require_processes
    from lmzoo.runs.directory import find_run
    from lmzoo.runs.request import make_request
    from lmzoo.runs.run import train_run
    from lmzoo.train.loggers import make_logger
    from lmzoo.train.progress import ProgressBar

    if name is None and start is None:
        raise click.MissingParameter(param_hint="'NAME|RUN'", param_type="argument")
    if reshard and not resume:
        raise click.UsageError("--reshard needs --resume: it resumes with another number of processes")
    target = name or ""
    name = targets.model_name(target) if targets.is_file(target) else name  # else a name or a run
    settings = with_documents(_overrides(file, overrides), documents)
    sources: dict[str, str | None] = {"tokenizer": tokenizer, "start": start, "teacher": teacher}
    request = make_request(name, data, out, settings, **sources, resume=resume)
    spec, out = request.spec, request.out
    if nproc is not None:
        require_processes(nproc, spec.train.batch_size)
        find_run(out, resume=resume)
        launch(nproc, sys.argv[1:])
        return
    with ProgressBar() as progress:
        loggers = [make_logger(logger, out)] if logger else []
        listeners = [*show_progress(request, progress), *loggers]
        options = {"resume": resume, "prolong": request.prolong, "reshard": reshard}
        result = train_run(spec, out, listeners=listeners, keep_freed_memory=True, **options)
    if os.environ.get("RANK", "0") != "0":
        return
    if as_json:
        print_json({**asdict(result), "path": str(out)})
        return
    click.echo(f"validation loss {result.loss:.4f} nats per token, {result.bits_per_byte:.4f} bits per byte")
    speed = f"{result.tokens:,} tokens in {humanize.duration(result.seconds)} ({result.tokens_per_s:,.0f} tokens/s)"
    click.echo(f"training: {speed}; evaluation: {humanize.duration(result.eval_seconds)}")
    again = suggestion("sample", str(out), plugins=[target] if targets.is_file(target) else [])
    click.echo(f"run: {humanize.line(str(out))}   try: {again}")


def _overrides(file: str | None, assignments: tuple[str, ...]) -> dict[str, Any]:
    """Read the settings of a TOML file as `model.KEY` and `train.KEY`, overridden by `assignments`."""
    values: dict[str, Any] = {}
    for table, settings in (configs.load_toml(file) if file else {}).items():
        if table not in ("model", "train") or not isinstance(settings, dict):
            raise ConfigError(f"{file}: {table} must be one of the tables [model] and [train]")
        values |= {f"{table}.{key}": value for key, value in settings.items()}
    return values | configs.parse_overrides(assignments)


@cli.command("eval")
@click.argument("runs", metavar="RUN|MODEL...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--data",
    metavar="NAME|FILE|DIR|GLOB|hf:NAME",
    shell_complete=complete_data,
    help="Another text.  [default: the text of the run]",
)
@click.option(
    "--stride",
    metavar="N",
    type=click.IntRange(1, 1 << 24),
    help="Tokens from one window to the next: each target sees at least the context length minus N tokens."
    "  [default: the context length]",
)
@click.option("--by-position", is_flag=True, help="Also print the loss by position.")
@click.option("--length", type=click.IntRange(1, 1 << 24), help="The loss by position up to here; may exceed training.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, or a list for several runs.")
@context_option
@documents_option
@tokenizer_option
@plugin_option
def eval_command(
    runs: tuple[Path, ...],
    data: str | None,
    stride: int | None,
    by_position: bool,
    length: int | None,
    as_json: bool,
    context: Literal["reset", "carried"],
    documents: Literal["joined", "isolated"] | None,
    tokenizer: Path | None,
) -> None:
    """Evaluate runs on their whole validation split.

    The text is read in windows of the context length, which do not overlap, so the first tokens of each have little
    context. With --stride N, windows overlap, each token counts once, and evaluation takes longer. With --context
    carried, each prediction sees all earlier text; a model whose positions end at its context length cannot do this.

    A run keeps its validation text (up to 16 MiB of tokens), so it is evaluated on the same text on any machine. A
    checkpoint, or a folder written by model.save(path, tokenizer=...), can be evaluated too; the latter needs --data.

    \b
    lmzoo eval runs/gpt2.tiny
    lmzoo eval runs/gpt2.tiny runs/mamba.tiny
    lmzoo eval runs/gpt2.tiny --data other.txt --json
    lmzoo eval runs/gpt2.tiny --stride 64
    lmzoo eval runs/mamba.tiny --context carried
    lmzoo eval runs/mamba.tiny --length 2000        the loss beyond its training length
    lmzoo eval runs/gpt2.tiny --documents isolated  else as in the training of the run
    """
    from dataclasses import asdict

    from lmzoo.runs.saved import evaluate_run, evaluate_run_positions, text_to_read

    found: list[dict[str, Any]] = []
    for run in runs:
        if data is None and (text := text_to_read(run, documents)) is not None:
            click.echo(f"reading the text of the run: {humanize.line(text)}", err=True)
        positions = evaluate_run_positions(run, data, length, tokenizer, documents) if by_position or length else []
        result = evaluate_run(run, data, tokenizer, documents, stride, context)
        values = {
            "loss": result.loss,
            "bits_per_byte": result.bits_per_byte,
            "tokens": result.tokens,
            "context_length": result.context_length,
            "stride": result.stride,
            "context": result.context,
        }
        more = {"by_position": [asdict(part) for part in positions]} if positions else {}
        found.append(({"run": str(run)} if len(runs) > 1 else {}) | values | more)
        if as_json:
            continue
        loss = f"loss {result.loss:.4f} nats per token, {result.bits_per_byte:.4f} bits per byte"
        where = f"{humanize.line(str(run))}: " if len(runs) > 1 else ""
        after = "context carried" if result.context == "carried" else f"stride {result.stride:,}"
        windows = f"windows of {result.context_length:,} tokens, {after}"
        click.echo(f"{where}{loss}, {result.tokens:,} tokens in {windows}")
        if positions:
            click.echo("tokens before   loss (nats per token)")
        for part in positions:
            click.echo(f"{part.first:>6} to {part.last:<6} {part.loss:.4f}  over {part.tokens:,} tokens")
    if as_json:
        print_json(found if len(runs) > 1 else found[0])
    elif len({values["tokens"] for values in found}) > 1:
        note = "these losses are over different tokens: compare the bits per byte, on one text (--data)"
        click.echo(note, err=True)
