"""The command line: entry point, printing of errors, and options that several commands share."""

from __future__ import annotations

import codecs
import json
import os
import shlex
import signal
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

import lmzoo
from lmzoo import files, humanize, plugins, registry, terminal
from lmzoo.errors import ConfigError, LmzooError

Command = TypeVar("Command", bound=Callable[..., Any])
SPEAKING_SECONDS = 1.0  # for rank 0 to print why it ends
SIGNALLED = 128  # exit code of a command ended by a signal, without the number of the signal


def main() -> None:
    """Entry point of the `lmzoo` command. Bad input is reported in one line, with exit code 2."""
    # The time that a waiting thread spins before it sleeps, read by GNU OpenMP when torch is loaded. The default is 30
    # times longer, which halves the speed of small models on a busy machine (docs/log.md).
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    warnings.showwarning = _show_warning
    _open_closed_streams()
    _replace_unknown_characters()
    try:
        # Without color, click writes no style at all; None leaves it to click, which looks for a terminal.
        code = cli.main(prog_name="lmzoo", standalone_mode=False, color=False if terminal.no_color() else None)
        sys.stdout.flush()  # an error of the disk, reported below
    except click.exceptions.Abort as error:  # Ctrl-C
        code = _interrupted(error.__cause__)
    except click.exceptions.NoArgsIsHelpError as error:  # a group without a command
        click.echo(error.ctx.get_help() if error.ctx else error.format_message())
        code = 0
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else "lmzoo"
        code = _say(f"{' '.join(error.format_message().split())}  (see {where} --help)", 2)
    except click.ClickException as error:
        code = _say(error.format_message(), 2)
    except LmzooError as error:
        code = _say(str(error), 2)
    except KeyboardInterrupt as error:
        code = _interrupted(error)
    except (BrokenPipeError, NobodyReads):  # `lmzoo list | head`
        _discard_output()
        code = 0
    except OSError as error:  # an error of the system that no command expected: a full disk behind stdout, a bad path
        _discard_output()
        name = f"{error.filename}: " if error.filename else ""
        code = _say(f"{name}{files.reason(error)}", 2)
    except Exception as error:
        line = _explained(error)
        if line is None:
            raise
        code = _say(line, 2)
    sys.exit(code if isinstance(code, int) else 0)


def _interrupted(error: BaseException | None) -> int:
    """Print that a signal ended the command; returns 128 plus its number, as a shell reports a process that it ended.

    The trainer's message gives the step and how to resume. Rank 0 reports it: the others wait, since the launcher ends
    rank 0, perhaps before it has said so, as soon as another rank has ended.
    """
    if os.environ.get("RANK", "0") != "0":
        time.sleep(SPEAKING_SECONDS)
    return _say(str(error or "") or "interrupted", SIGNALLED + getattr(error, "signal_number", signal.SIGINT))


def _explained(error: Exception) -> str | None:
    """Returns one line for an exception of a plug-in, or for too little memory; None for a bug in lmzoo."""
    if isinstance(error, MemoryError):
        return "out of memory"
    return plugins.blame(error, registry.registered_classes())


def _open_closed_streams() -> None:
    """Open /dev/null in the place of standard streams that are closed (`lmzoo list >&-`), which Python gives as None.

    Else the first file that is opened would get the number of the stream.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 (open until the end)


def _replace_unknown_characters() -> None:
    """Let streams write "?" for a character that their encoding does not have, such as the lines of a table in Latin-1.

    Else a command would end with a traceback where the locale of the machine has another encoding than UTF-8.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper) and codecs.lookup(stream.encoding).name != "utf-8":
            stream.reconfigure(errors="replace")


def _discard_output() -> None:
    """Redirect stdout to nowhere, so that Python does not try to write the rest of it again at its end."""
    with suppress(OSError, ValueError):  # a stdout without a file descriptor
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    """Print a warning in one line, as errors are, without the place in the code."""
    click.echo(f"lmzoo: warning: {humanize.line(str(message))}", err=True)


def _say(message: str, code: int) -> int:
    """Print an error. Ranks other than 0 name themselves; an interrupt stops all ranks, so only rank 0 reports it."""
    rank = humanize.line(os.environ.get("RANK", "0"))
    if rank == "0" or code < SIGNALLED:
        message = humanize.line(message)
        with suppress(OSError):  # a full disk behind stderr
            click.echo(f"lmzoo: {message}" if rank == "0" else f"lmzoo: rank {rank}: {message}", err=True)
    return code


def print_json(value: Any, **options: Any) -> None:
    """Print a value as JSON that every program reads; `options` are those of `json.dumps`."""
    click.echo(humanize.plain_json(json.dumps(humanize.finite(value), allow_nan=False, **options)))


def suggestion(*words: str, plugins: Sequence[str] = ()) -> str:
    """Returns the line of a command to try next, with the plug-ins of this command and more `plugins`."""
    sources = (*click.get_current_context().meta.get(PLUGINS, ()), *plugins)
    return humanize.line(shlex.join(["lmzoo", *words, *(word for source in sources for word in ("--plugin", source))]))


PLUGINS = "lmzoo.plugins"  # in `click.Context.meta`: the values of --plugin


def plugin_option(command: Command) -> Command:
    """Add the option `--plugin FILE_OR_MODULE`, which is loaded before the command runs."""

    def load(context: click.Context, _option: click.Parameter, sources: tuple[str, ...]) -> None:
        context.meta[PLUGINS] = sources
        for source in sources:
            registry.load_plugin(source)

    text = "A Python file or module that registers more models."
    return click.option(
        "--plugin", multiple=True, metavar="FILE|MODULE", expose_value=False, is_eager=True, callback=load, help=text
    )(command)


def set_option(command: Command) -> Command:
    """Add the option `--set KEY=VALUE`, which may be given several times."""
    text = "Override a setting of the model or the training, e.g. d_model=256 or train.seed=1."
    return click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", shell_complete=_settings, help=text)(
        command
    )


def documents_option(command: Command) -> Command:
    """Add the option `--documents`, for the setting `documents`."""
    text = "Whether predictions may cross the beginning of a document, see docs/data.md."
    return click.option("--documents", type=click.Choice(["joined", "isolated"]), help=text)(command)


def context_option(command: Command) -> Command:
    """Add the option `--context` of evaluations."""
    text = "Whether a window of the text begins without context, or with the state that the one before it has left."
    choice = click.Choice(["reset", "carried"])
    return click.option("--context", type=choice, default="reset", help=f"{text}  [default: reset]")(command)


def tokenizer_option(command: Command) -> Command:
    """Add the option `--tokenizer`, for models that were saved without one."""
    text = "The tokenizer of a model that was saved without one: its file, or a run that has it."
    return click.option("--tokenizer", type=click.Path(path_type=Path), metavar="FILE|RUN", help=text)(command)


def device_option(command: Command) -> Command:
    """Add the option `--device`, which sets LMZOO_DEVICE: for this process, and for those that it starts."""

    def choose(_context: click.Context, _option: click.Parameter, kind: str | None) -> None:
        if kind is not None:
            os.environ["LMZOO_DEVICE"] = kind

    text = "Where to train.  [default: LMZOO_DEVICE, else a GPU if there is one]"
    return click.option("--device", metavar="cpu|cuda", expose_value=False, is_eager=True, callback=choose, help=text)(
        command
    )


def with_documents(settings: dict[str, Any], documents: str | None) -> dict[str, Any]:
    """Return the settings with that of `--documents`. Raises `ConfigError` if `--set` gives another one."""
    if documents is None:
        return settings
    for key in {"documents", "train.documents"} & settings.keys():
        if settings[key] != documents:
            raise ConfigError(f"--documents {documents} and --set {key}={settings[key]} must be the same")
    return settings | {"train.documents": documents}


def _settings(context: click.Context, option: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from lmzoo.cli.complete import complete_settings  # which adds its command to the group below

    return complete_settings(context, option, incomplete)


class NobodyReads(Exception):
    """Raised for a broken pipe: nobody reads the output. Click would exit with code 1, as after a check that fails."""


class Commands(click.Group):
    """The group of all commands."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command. Raises `NobodyReads` for a broken pipe."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise NobodyReads from None


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(lmzoo.__version__, prog_name="lmzoo")
def cli() -> None:
    """An architecture zoo for language models: one contract, one trainer, one sampler.

    \b
    lmzoo list                                        list all models
    lmzoo train gpt2.tiny --data pydocs               train one model; writes runs/gpt2.tiny
    lmzoo sample runs/gpt2.tiny --prompt "The "       generate text
    lmzoo compare bigram lstm.tiny gpt2.tiny          train several with one budget, and rank them
    lmzoo check my_model.py                           check a new backbone
    lmzoo data show novel.txt                         look at a text before training on it
    """
