"""The command `lmzoo sample`, which generates text with a trained model."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from lmzoo.cli.group import Command, cli, plugin_option, print_json, tokenizer_option
from lmzoo.errors import ConfigError
from lmzoo.sampling_config import TEMPERATURE, SamplingConfig
from lmzoo.terminal import shown

if TYPE_CHECKING:
    from lmzoo.data.tokenizers import Tokenizer
    from lmzoo.generation.drafts import Draft

MOST_INT8 = 0.9  # with --weights int8, a smaller share of int8 weights is reported
LIMIT = 1 << 40  # of a number of tokens; not imported from lmzoo.arguments, which imports torch


def sampling_options(command: Command) -> Command:
    """Add an option for each setting of `SamplingConfig` that has a help text, in their order."""
    for field in reversed([field for field in fields(SamplingConfig) if "help" in field.metadata]):
        flag, kind = f"--{field.name.replace('_', '-')}", int if "int" in str(field.type) else float
        default = TEMPERATURE if field.name == "temperature" else field.default
        command = click.option(flag, type=kind, default=default, show_default=True, **field.metadata)(command)
    return command


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
            print_json({"prompt": asked, "texts": [*texts]})
            return
        for number, text in enumerate(texts, start=1):
            click.echo(click.style(f"--- {number}", dim=True) + f"\n{shown(prompt + text)}")
        return
    guesser = None if draft is None else _draft(draft, found)
    pieces = generate_text(model, found, beginning, tokens, sampling, **ends, draft=guesser, generator=generator)
    if as_json:
        print_json({"prompt": asked, "texts": ["".join(pieces)]})
        return
    click.echo(shown(prompt), nl=False)
    try:
        for text in pieces:
            click.echo(shown(text), nl=False)
    finally:  # ends the line of the text, also after Ctrl-C
        click.echo()


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
