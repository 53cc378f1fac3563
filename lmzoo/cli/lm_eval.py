"""The command `lmzoo lm-eval`: the Language Model Evaluation Harness, which then knows our models and tasks."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from lmzoo.cli.group import cli
from lmzoo.errors import InputError, LmzooError


@cli.command(
    "lm-eval",
    short_help="Evaluate a model by the Language Model Evaluation Harness.",
    context_settings={"ignore_unknown_options": True, "help_option_names": ["--help"]},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def lm_eval(arguments: tuple[str, ...]) -> None:
    """Evaluate a model by the Language Model Evaluation Harness (pip install 'lmzoo[eval]').

    ARGUMENTS are those of `lm_eval run`; the model is `lmzoo` unless --model says otherwise. Tasks that need no
    download are zoo_pydocs (bits per byte), zoo_words (the right word of four) and zoo_copy (repeat a line).
    docs/lm-eval.md has more.

    \b
    lmzoo lm-eval --model_args path=runs/gpt2.tiny --tasks zoo_pydocs,zoo_words,zoo_copy
    lmzoo lm-eval --model_args path=runs/gpt2.tiny --batch_size 32 --tasks lambada_openai --limit 100
    """
    if not arguments:  # lm_eval says it too, after it has read all of its tasks: many seconds
        raise InputError("lm-eval: no tasks are named: lmzoo lm-eval --model_args path=RUN --tasks zoo_pydocs")
    try:
        from lm_eval._cli import HarnessCLI
        from lm_eval.utils import setup_logging
    except ImportError:
        raise InputError("lm-eval needs the package lm_eval: pip install 'lmzoo[eval]'") from None
    import lmzoo.harness.adapter  # noqa: F401 (it makes the model known to lm_eval)

    given = {argument.partition("=")[0] for argument in arguments}
    model = [] if given & {"--model", "-M"} else ["--model", "lmzoo"]
    tasks = [] if "--include_path" in given else ["--include_path", str(_tasks())]
    setup_logging()
    before = sys.argv
    sys.argv = ["lm_eval", "run", *arguments, *model, *tasks]  # lm_eval reads no other arguments
    try:
        parser = HarnessCLI()
        parser.execute(parser.parse_args())
    except LmzooError:
        raise
    except Exception as error:
        if _is_ours(error):
            raise
        raise InputError(f"lm-eval: {(str(error).strip() or type(error).__name__).splitlines()[0]}") from error
    finally:
        sys.argv = before


def _is_ours(error: Exception) -> bool:
    """True for an exception of our code, or of torch below it: a bug. Others are what lm_eval says of its arguments."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    module = "" if trace is None else str(trace.tb_frame.f_globals.get("__name__"))
    return module.split(".")[0] in ("lmzoo", "torch")


def _tasks() -> Path:
    """Returns the folder of our tasks."""
    import lmzoo.harness.tasks

    return Path(lmzoo.harness.tasks.__file__).parent
