"""`lmzoo completion`, and what it completes: models, corpora, settings, checks."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

import click
from click.shell_completion import CompletionItem, get_completion_class

from lmzoo import registry
from lmzoo.cli.group import cli
from lmzoo.errors import LmzooError


def complete_models(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Completes the name of a model, or of a file, which may register models or hold a run."""
    return _starting(registry.list_models(), incomplete) or [CompletionItem(incomplete, type="file")]


def complete_data(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Completes the name of a corpus, or of a file."""
    from lmzoo.data.corpora import corpus_names

    return _starting(corpus_names(), incomplete) or [CompletionItem(incomplete, type="file")]


def complete_settings(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Completes `KEY=` of `--set`: the settings of the training, and of the models that the command names."""
    from lmzoo.settings import describe
    from lmzoo.train.config import TrainConfig

    kinds: list[type] = [TrainConfig]
    for name in context.args:  # the words that are no options, while an option waits for its value
        with suppress(LmzooError):
            kinds.append(registry.model_class(registry.split_name(name)[0].name).config_class)
    names = {setting.name for kind in kinds for setting in describe(kind)} - {"vocab_size"}
    return _starting((f"{name}=" for name in names), incomplete)


def complete_tune(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Completes the name of a setting of `--tune`, also after a comma."""
    from lmzoo.compare.tune import SETTINGS

    before, comma, _ = incomplete.rpartition(",")
    return _starting((f"{before}{comma}{name}" for name in SETTINGS), incomplete)


def complete_probes(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Completes the last name of a list of probes with commas."""
    from lmzoo.data.probes import PROBES

    before, comma, last = incomplete.rpartition(",")
    return [CompletionItem(f"{before}{comma}{name}") for name in ("all", *PROBES) if name.startswith(last)]


def complete_checks(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Completes the name of a check."""
    from lmzoo.conformance.suite import check_names

    return _starting(check_names(), incomplete)


def _starting(names: Iterable[str], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in sorted(names) if name.startswith(incomplete)]


@cli.command(short_help="Print a script for tab completion in a shell.")
@click.argument("shell", metavar="SHELL", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a shell script for tab completion of lmzoo's commands, options, models and settings.

    \b
    lmzoo completion bash >> ~/.bashrc
    lmzoo completion fish > ~/.config/fish/completions/lmzoo.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(cli, {}, "lmzoo", "_LMZOO_COMPLETE").source())
