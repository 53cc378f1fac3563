"""Commands about runs: train, sample, eval."""

from __future__ import annotations

import json
import os
import shlex
import sys
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from lmzoo import configs, humanize, targets
from lmzoo.cli.complete import complete_data, complete_models
from lmzoo.cli.group import PLUGINS, Command, cli, documents_option, plugin_option, set_option, with_documents
from lmzoo.errors import ConfigError
from lmzoo.sampling_config import TEMPERATURE, SamplingConfig

if TYPE_CHECKING:
    from lmzoo.data.tokenizers import Tokenizer
    from lmzoo.generation.drafts import Draft

MOST_INT8 = 0.9  # with --weights int8, a smaller share of int8 weights is reported
LIMIT = 1 << 40  # of a number of tokens; not imported from lmzoo.arguments, which imports torch


@cli.command()
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
        click.echo(json.dumps({**asdict(result), "path": str(out)}))
        return
    click.echo(f"validation loss {result.loss:.4f} nats per token, {result.bits_per_byte:.4f} bits per byte")
    speed = f"{result.tokens:,} tokens in {humanize.duration(result.seconds)} ({result.tokens_per_s:,.0f} tokens/s)"
    click.echo(f"training: {speed}; evaluation: {humanize.duration(result.eval_seconds)}")
    plugins = [*click.get_current_context().meta[PLUGINS], *([target] if targets.is_file(target) else [])]
    again = shlex.join(["lmzoo", "sample", str(out), *(word for source in plugins for word in ("--plugin", source))])
    click.echo(f"run: {out}   try: {again}")


def _overrides(file: str | None, assignments: tuple[str, ...]) -> dict[str, Any]:
    """Read the settings of a TOML file as `model.KEY` and `train.KEY`, overridden by `assignments`."""
    values: dict[str, Any] = {}
    for table, settings in (configs.load_toml(file) if file else {}).items():
        if table not in ("model", "train") or not isinstance(settings, dict):
            raise ConfigError(f"{file}: {table} must be one of the tables [model] and [train]")
        values |= {f"{table}.{key}": value for key, value in settings.items()}
    return values | configs.parse_overrides(assignments)


def sampling_options(command: Command) -> Command:
    """Add an option for each setting of `SamplingConfig` that has a help text, in their order."""
    for field in reversed([field for field in fields(SamplingConfig) if "help" in field.metadata]):
        flag, kind = f"--{field.name.replace('_', '-')}", int if "int" in str(field.type) else float
        default = TEMPERATURE if field.name == "temperature" else field.default
        command = click.option(flag, type=kind, default=default, show_default=True, **field.metadata)(command)
    return command


def tokenizer_option(command: Command) -> Command:
    """Add the option `--tokenizer`, for models that were saved without one."""
    text = "The tokenizer of a model that was saved without one: its file, or a run that has it."
    return click.option("--tokenizer", type=click.Path(path_type=Path), metavar="FILE|RUN", help=text)(command)


@cli.command()
@click.argument("run", metavar="RUN|MODEL", type=click.Path(path_type=Path))
@click.option("--prompt", help="The text to continue.  [default: a line break, if the tokenizer knows it]")
@click.option("--chat", is_flag=True, help="The prompt is a message: answer it by the chat template of the model.")
@click.option("--system", metavar="TEXT", help="With --chat: the system message before the prompt.")
@click.option(
    "-n",
    "--tokens",
    default=500,
    show_default=True,
    type=click.IntRange(0, LIMIT - 1),
    help="Maximum number of tokens to generate.",
)
@sampling_options
@click.option("--stop", multiple=True, help="Stop before this text.")
@click.option(
    "--samples",
    default=1,
    show_default=True,
    type=click.IntRange(1, 10_000),
    help="Texts to generate from the same prompt.",
)
@click.option(
    "--draft",
    metavar="RUN|lookup",
    help="Speculative decoding: a smaller run drafts tokens, or lookup drafts from the prompt.",
)
@click.option("--weights", type=click.Choice(["bfloat16", "int8"]), help="Quantize the weights for faster decoding.")
@click.option("--compiled", is_flag=True, help="With --weights: compile first (a minute), for long texts.")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), help="Random seed, for reproducible samples.")
@click.option("--json", "as_json", is_flag=True, help="Print prompt and texts as one JSON object.")
@tokenizer_option
@plugin_option
def sample(
    run: Path,
    prompt: str | None,
    chat: bool,
    system: str | None,
    tokens: int,
    stop: tuple[str, ...],
    samples: int,
    draft: str | None,
    weights: Literal["bfloat16", "int8"] | None,
    compiled: bool,
    seed: int | None,
    as_json: bool,
    tokenizer: Path | None,
    **settings: Any,
) -> None:
    """Generate text with a trained model, token by token.

    RUN is a run, one of its checkpoints, a folder written by model.save(path, tokenizer=...), or a checkpoint of
    Hugging Face transformers, whose texts end at its end-of-text tokens.

    \b
    lmzoo sample runs/gpt2.tiny --prompt "The function "
    lmzoo sample smol --chat --prompt "What is a bigram?"       the answer of a chat model
    lmzoo sample runs/gpt2.tiny --temperature 0 --stop $'\\n\\n'
    lmzoo sample runs/gpt2.tiny --samples 5 --tokens 40
    lmzoo sample runs/gpt2.10m --weights int8 -n 5000
    lmzoo sample runs/gpt2.10m --draft runs/bigram        the same distribution, faster
    """
    import torch

    from lmzoo.generation import generate_text, generate_texts
    from lmzoo.generation.text import default_prompt
    from lmzoo.inference import decoding_copy, has_bfloat16_kernels, int8_share
    from lmzoo.runs.saved import load_run

    sampling = SamplingConfig(**settings)
    if compiled and weights is None:
        raise click.UsageError("--compiled needs --weights bfloat16 or int8")
    if chat and prompt is None:
        raise click.UsageError("--chat needs --prompt, the message to answer")
    if system is not None and not chat:
        raise click.UsageError("--system needs --chat")
    model, found, _ = load_run(run, tokenizer)
    prompt = default_prompt(found) if prompt is None else prompt
    asked = prompt
    beginning: str | list[int] = prompt
    if chat:
        messages = [{"role": "system", "content": system}] if system is not None else []
        messages.append({"role": "user", "content": prompt})
        beginning, prompt = found.apply_chat_template(messages, add_generation_prompt=True), ""
    if weights is not None:
        model = decoding_copy(model, weights, rows=samples, compiled=compiled)
        if not has_bfloat16_kernels():
            click.echo("this CPU has no bfloat16 kernels: the copy takes less memory, but is slower", err=True)
        if weights == "int8" and (share := int8_share(model)) < MOST_INT8:
            click.echo(f"int8: {share:.0%} of the weights; the others are bfloat16", err=True)
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    ends: dict[str, Any] = {"stop": stop, "stop_tokens": found.stop_tokens}
    if samples != 1:
        if draft is not None:
            raise click.UsageError("--draft generates one text: leave out --samples")
        texts = generate_texts(model, found, beginning, samples, tokens, sampling, **ends, generator=generator)
        if as_json:
            click.echo(json.dumps({"prompt": asked, "texts": [*texts]}))
            return
        for number, text in enumerate(texts, start=1):
            click.echo(click.style(f"--- {number}", dim=True) + f"\n{shown(prompt + text)}")
        return
    guesser = None if draft is None else _draft(draft, found)
    pieces = generate_text(model, found, beginning, tokens, sampling, **ends, draft=guesser, generator=generator)
    if as_json:
        click.echo(json.dumps({"prompt": asked, "texts": ["".join(pieces)]}))
        return
    click.echo(shown(prompt), nl=False)
    try:
        for text in pieces:
            click.echo(shown(text), nl=False)
    finally:  # ends the line of the text, also after Ctrl-C
        click.echo()


def shown(text: str) -> str:
    """Escape control characters of a generated text on a terminal, which would obey them; elsewhere return it as is."""
    return humanize.plain(text, keep="\n\t\u200c\u200d") if sys.stdout.isatty() else text


def _draft(name: str, tokenizer: Tokenizer) -> Draft:
    """Make the draft of `lmzoo sample`: the model of a run with the same tokenizer, or a lookup in the prompt."""
    from lmzoo.generation import PromptLookup
    from lmzoo.runs.saved import load_run

    if name == "lookup":
        return PromptLookup(tokenizer.vocab_size)
    model, its_tokenizer, _ = load_run(name)
    if its_tokenizer.sha256 != tokenizer.sha256:
        raise ConfigError(f"--draft {name}: its tokenizer differs; both runs must have the same tokenizer")
    return model


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
    documents: Literal["joined", "isolated"] | None,
    tokenizer: Path | None,
) -> None:
    """Evaluate runs on their whole validation split.

    The text is read in windows of the context length, which do not overlap, so the first tokens of each have little
    context. With --stride N, windows overlap, each token counts once, and evaluation takes longer.

    A run keeps its validation text (up to 16 MiB of tokens), so it is evaluated on the same text on any machine. A
    checkpoint, or a folder written by model.save(path, tokenizer=...), can be evaluated too; the latter needs --data.

    \b
    lmzoo eval runs/gpt2.tiny
    lmzoo eval runs/gpt2.tiny runs/mamba.tiny
    lmzoo eval runs/gpt2.tiny --data other.txt --json
    lmzoo eval runs/gpt2.tiny --stride 64
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
        result = evaluate_run(run, data, tokenizer, documents, stride)
        values = {
            "loss": result.loss,
            "bits_per_byte": result.bits_per_byte,
            "tokens": result.tokens,
            "context_length": result.context_length,
            "stride": result.stride,
        }
        more = {"by_position": [asdict(part) for part in positions]} if positions else {}
        found.append(({"run": str(run)} if len(runs) > 1 else {}) | values | more)
        if as_json:
            continue
        loss = f"loss {result.loss:.4f} nats per token, {result.bits_per_byte:.4f} bits per byte"
        where = f"{humanize.line(str(run))}: " if len(runs) > 1 else ""
        windows = f"windows of {result.context_length:,} tokens, stride {result.stride:,}"
        click.echo(f"{where}{loss}, {result.tokens:,} tokens in {windows}")
        if positions:
            click.echo("tokens before   loss (nats per token)")
        for part in positions:
            click.echo(f"{part.first:>6} to {part.last:<6} {part.loss:.4f}  over {part.tokens:,} tokens")
    if as_json:
        click.echo(json.dumps(found if len(runs) > 1 else found[0]))
    elif len({values["tokens"] for values in found}) > 1:
        note = "these losses are over different tokens: compare the bits per byte, on one text (--data)"
        click.echo(note, err=True)
