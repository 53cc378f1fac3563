"""The command line: parse, call, print. A command's work lives in its room; nothing heavy is imported before.

Exit codes: 0 done, 1 a check failed, 2 bad input (one line on stderr), 130 interrupted.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

import lmzoo
from lmzoo import config as configs
from lmzoo import registry
from lmzoo.errors import ConfigError, LmzooError

if TYPE_CHECKING:
    from lmzoo.data.tokenizers import Tokenizer
    from lmzoo.generation.drafts import Draft

Command = TypeVar("Command", bound=Callable[..., Any])


def main() -> None:
    """Entry point of the `lmzoo` command: bad input is one clear line and exit code 2."""
    # Read by GNU OpenMP when torch is loaded: how long a thread that waits for another one spins before it sleeps. The
    # default is 30 times longer, which helps nobody and halves the speed of small models on a busy machine (docs/log.md).
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    warnings.showwarning = _show_warning
    try:
        code = cli.main(standalone_mode=False)
    except click.exceptions.Abort as error:  # from Ctrl-C; the trainer's own says where it stopped and how to go on
        code = _say(str(error.__cause__ or "") or "interrupted", 130)
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else "lmzoo"
        code = _say(f"{error.format_message()}  (see {where} --help)", 2)
    except click.ClickException as error:
        code = _say(error.format_message(), 2)
    except LmzooError as error:
        code = _say(str(error), 2)
    except KeyboardInterrupt:
        code = _say("interrupted", 130)
    except BrokenPipeError:  # `lmzoo list | head`
        sys.stderr.close()
        code = 0
    sys.exit(code if isinstance(code, int) else 0)


def _show_warning(message: Warning | str, category: type[Warning], *place: object) -> None:
    """A warning in one line, as errors are; where in our code it was raised is nothing to the user."""
    click.echo(f"lmzoo: warning: {message}", err=True)


def _say(message: str, code: int) -> int:
    click.echo(f"lmzoo: {message}", err=True)
    return code


def plugin_option(command: Command) -> Command:
    """`--plugin FILE_OR_MODULE`: load it before anything else of the command happens."""

    def load(ctx: click.Context, option: click.Parameter, sources: tuple[str, ...]) -> None:
        for source in sources:
            registry.load_plugin(source)

    text = "A Python file or module that registers more models."
    return click.option(
        "--plugin", multiple=True, metavar="FILE|MODULE", expose_value=False, is_eager=True, callback=load, help=text
    )(command)


def set_option(command: Command) -> Command:
    """`--set KEY=VALUE`, any number of times."""
    text = "Override a setting of the model or the training, e.g. d_model=256 or train.seed=1."
    return click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help=text)(command)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(lmzoo.__version__, prog_name="lmzoo")
def cli() -> None:
    """An architecture zoo for language models: one contract, one trainer, one sampler.

    \b
    lmzoo list                                        what there is
    lmzoo train gpt2.tiny --data pydocs               train one model; writes runs/gpt2.tiny
    lmzoo sample runs/gpt2.tiny --prompt "The "       let it write
    lmzoo compare bigram lstm.tiny gpt2.tiny          train several alike, and rank them
    lmzoo check my_model.py                           is a new backbone right?
    """


@cli.command("list")
@click.argument("pattern", default="*")
@click.option("--state", type=click.Choice(["none", "constant", "linear"]), help="How the decoding state grows.")
@click.option("--extrapolates/--no-extrapolates", default=None, help="Goes on past its training context, or not.")
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
@click.option("--vocab-size", default=65, show_default=True, help="For the counts below.")
@plugin_option
def show(name: str, vocab_size: int) -> None:
    """Show a model: its card, its settings, its size and costs.

    \b
    lmzoo show mamba
    lmzoo show gpt2.124m --vocab-size 50257
    """
    import torch

    family, preset = registry.split_name(name)
    with torch.device("meta"):  # counting needs no memory
        model = lmzoo.create_model(name, vocab_size=vocab_size)
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
    click.echo(configs.dump_toml({"model": configs.to_dict(model.config), "train": registry.recipe(name)}))


@cli.command()
@click.argument("name")
@click.option("--data", default="pydocs", show_default=True, metavar="NAME|FILE|DIR|GLOB", help="The text to learn.")
@click.option("--out", type=click.Path(path_type=Path), help="Run directory.  [default: runs/NAME]")
@click.option("--tokenizer", metavar="char|byte|bpe:N", help="How text becomes tokens.  [default: char]")
@click.option("--config", "file", type=click.Path(), help="A TOML file with [model] and [train] settings.")
@click.option("--resume", is_flag=True, help="Go on from the newest checkpoint of the run directory.")
@set_option
@plugin_option
def train(
    name: str,
    data: str,
    out: Path | None,
    tokenizer: str | None,
    file: str | None,
    resume: bool,
    overrides: tuple[str, ...],
) -> None:
    """Train a model.

    Writes the run directory: config.toml, metrics.jsonl, tokenizer.json, checkpoints/, sample.txt. Ctrl-C saves a
    checkpoint; --resume goes on from it, to the bit.

    \b
    lmzoo train gpt2.tiny --data pydocs --set steps=500
    lmzoo train llama --data novel.txt --tokenizer bpe:1000 --set window=64 --out runs/novel
    lmzoo train gpt2.tiny --data pydocs --set steps=500 --resume
    """
    from lmzoo.conformance import ranking_problem
    from lmzoo.train.events import Event, NoteEvent, StartEvent
    from lmzoo.train.progress import ProgressBar
    from lmzoo.train.run import make_spec, train_run

    def warn_if_wrong(event: Event) -> None:
        if isinstance(event, StartEvent) and (problem := ranking_problem(name)):
            progress(NoteEvent(f"warning: {name} {problem}; it trains all the same, but its loss may mean nothing"))

    spec = make_spec(name, data, tokenizer=tokenizer, overrides=_overrides(file, overrides))
    out = out or Path("runs") / name
    with ProgressBar() as progress:
        result = train_run(spec, out, resume=resume, listeners=[progress, warn_if_wrong])
    click.echo(f"validation loss {result.loss:.4f} nats per token, {result.bits_per_byte:.4f} bits per byte")
    click.echo(f"{result.tokens:,} tokens in {result.seconds:.0f} s ({result.tokens_per_s:,.0f} tokens/s)")
    click.echo(f"run: {out}   try: lmzoo sample {out}")


def _overrides(file: str | None, assignments: tuple[str, ...]) -> dict[str, Any]:
    """The settings of a TOML file as `model.KEY` and `train.KEY`, then those of the command line, which win."""
    values: dict[str, Any] = {}
    for table, settings in (configs.load_toml(file) if file else {}).items():
        if table not in ("model", "train") or not isinstance(settings, dict):
            raise ConfigError(f"{file}: {table} is not a table it may hold: [model] and [train]")
        values |= {f"{table}.{key}": value for key, value in settings.items()}
    return values | configs.parse_overrides(assignments)


@cli.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--prompt", default="\n", help="The text to continue.  [default: a line break]")
@click.option("-n", "--tokens", default=500, show_default=True, help="Tokens to write at most.")
@click.option("--temperature", default=0.8, show_default=True, help="0 always takes the likeliest token.")
@click.option("--top-k", type=int, help="Only the k likeliest tokens.")
@click.option("--top-p", type=float, help="Only the likeliest tokens that together reach this probability.")
@click.option("--min-p", type=float, help="Only tokens at least this fraction as likely as the likeliest.")
@click.option("--repetition-penalty", default=1.0, show_default=True, help="Above 1: less of what was there before.")
@click.option("--frequency-penalty", default=0.0, help="Above 0: less of what was there often.")
@click.option("--presence-penalty", default=0.0, help="Above 0: less of what was there at all.")
@click.option("--stop", multiple=True, help="End before this text.")
@click.option("--samples", default=1, show_default=True, help="Texts to write, all after the same prompt.")
@click.option("--draft", metavar="RUN|lookup", help="A smaller run of the same tokenizer guesses ahead, or the prompt.")
@click.option("--seed", type=int, help="For the same text again.")
@plugin_option
def sample(
    run: Path,
    prompt: str,
    tokens: int,
    stop: tuple[str, ...],
    samples: int,
    draft: str | None,
    seed: int | None,
    **settings: Any,
) -> None:
    """Let a trained model write, token by token.

    \b
    lmzoo sample runs/gpt2.tiny --prompt "The function "
    lmzoo sample runs/gpt2.tiny --temperature 0 --stop $'\\n\\n'
    lmzoo sample runs/gpt2.tiny --samples 5 --tokens 40
    lmzoo sample runs/gpt2.10m --draft runs/bigram        the same text in distribution, sooner
    """
    import torch

    from lmzoo.generation import generate_text, generate_texts
    from lmzoo.sampling import SamplingConfig
    from lmzoo.train.run import load_run

    sampling = SamplingConfig(**settings)
    model, tokenizer, _ = load_run(run)
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    if samples != 1:
        if draft is not None:
            raise click.UsageError("--draft writes one text: leave out --samples")
        texts = generate_texts(model, tokenizer, prompt, samples, tokens, sampling, stop=stop, generator=generator)
        for number, text in enumerate(texts, start=1):
            click.echo(click.style(f"--- {number}", dim=True) + f"\n{prompt}{text}")
        return
    guesser = None if draft is None else _draft(draft, tokenizer)
    pieces = generate_text(model, tokenizer, prompt, tokens, sampling, stop=stop, draft=guesser, generator=generator)
    click.echo(prompt, nl=False)
    try:
        for text in pieces:
            click.echo(text, nl=False)
    finally:  # also after Ctrl-C: what there is stays, and the terminal's next line is its own
        click.echo()


def _draft(name: str, tokenizer: Tokenizer) -> Draft:
    """The draft of `lmzoo sample`: the model of a run with the same tokenizer, or what the prompt says."""
    from lmzoo.generation import PromptLookup
    from lmzoo.train.run import load_run

    if name == "lookup":
        return PromptLookup(tokenizer.vocab_size)
    model, its_tokenizer, _ = load_run(name)
    if its_tokenizer.sha256 != tokenizer.sha256:
        raise ConfigError(f"--draft {name}: its tokenizer is another one; both runs must have the same tokens")
    return model


@cli.command("eval")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--data", metavar="NAME|FILE|DIR|GLOB", help="Another text.  [default: the run's own]")
@click.option("--by-position", is_flag=True, help="Also the loss by the number of tokens read before.")
@click.option("--length", type=click.IntRange(min=1), help="The same up to here, also beyond the training's length.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@plugin_option
def eval_command(run: Path, data: str | None, by_position: bool, length: int | None, as_json: bool) -> None:
    """Evaluate a run on the whole validation split.

    \b
    lmzoo eval runs/gpt2.tiny
    lmzoo eval runs/gpt2.tiny --data other.txt --json
    lmzoo eval runs/mamba.tiny --length 2000        does it gain from more than it was trained with?
    """
    from dataclasses import asdict

    from lmzoo.train.run import evaluate_run, evaluate_run_positions

    positions = evaluate_run_positions(run, data, length) if by_position or length else []
    result = evaluate_run(run, data)
    if as_json:
        found = {"loss": result.loss, "bits_per_byte": result.bits_per_byte, "tokens": result.tokens}
        more = {"by_position": [asdict(part) for part in positions]} if positions else {}
        click.echo(json.dumps(found | more))
        return
    click.echo(
        f"loss {result.loss:.4f} nats per token, {result.bits_per_byte:.4f} bits per byte, {result.tokens:,} tokens"
    )
    if positions:
        click.echo("tokens before   loss (nats per token)")
    for part in positions:
        click.echo(f"{part.first:>6} to {part.last:<6} {part.loss:.4f}  over {part.tokens:,} tokens")


@cli.command()
@click.argument("names", nargs=-1, required=True)
@click.option("--data", default="pydocs", show_default=True, metavar="NAME|FILE|DIR|GLOB", help="The text to learn.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/compare"), show_default=True)
@click.option("--tokenizer", default="char", show_default=True, metavar="char|byte|bpe:N")
@set_option
@plugin_option
def compare(names: tuple[str, ...], data: str, out: Path, tokenizer: str, overrides: tuple[str, ...]) -> None:
    """Train several models on the same tokens in the same order, and rank them.

    Writes results.json, table.md and report.html. Run again after an interruption, it goes on where it was.

    \b
    lmzoo compare bigram mlp.tiny lstm.tiny gpt2.tiny mamba.tiny
    lmzoo compare gpt2.1m llama.1m --data novel.txt --set steps=2000 --out runs/two
    """
    from lmzoo.compare import compare as run_comparison
    from lmzoo.compare.table import print_results
    from lmzoo.train.progress import ProgressBar

    results = run_comparison(
        names,
        data,
        out,
        tokenizer=tokenizer,
        settings=configs.parse_overrides(overrides),
        command=shlex.join(["lmzoo", *sys.argv[1:]]),
        listeners=[ProgressBar()],
    )
    print_results(results, out)


@cli.command()
@click.argument("targets", nargs=-1)
@click.option("--only", multiple=True, metavar="CHECK", help="Run this check alone.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON (a list for several models).")
@plugin_option
def check(targets: tuple[str, ...], only: tuple[str, ...], as_json: bool) -> None:
    """Is a model right? Causality, caches, masks, losses, gradients, saving.

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

    torch.set_num_threads(1)  # the models that are checked are tiny: sharing their work out costs more than it saves

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
