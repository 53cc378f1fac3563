"""Decides what a request to train means: a new run, from new weights or a trained model, or a run to go on with."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lmzoo import arguments, registry
from lmzoo.errors import ConfigError
from lmzoo.runs.origin import START, TEACHER
from lmzoo.runs.resuming import read_spec
from lmzoo.runs.saved import is_run
from lmzoo.runs.spec import DEFAULT_DATA, RunSpec, make_spec
from lmzoo.runs.start import start_spec
from lmzoo.storage import reading

RUNS = Path("runs")  # where a run is made if no directory is named


class Request(NamedTuple):
    """The run to train and its directory; the flags are arguments of `train_run`."""

    spec: RunSpec
    out: Path
    resume: bool
    prolong: bool

    @property
    def note(self) -> str | None:
        """A message for the user, or None: a run that was to be resumed is not there, so a new one begins."""
        return f"{self.out} holds no run yet: a new one begins" if self.resume and not is_run(self.out) else None


def make_request(
    name: str | None,
    data: str | None,
    out: str | Path | None,
    settings: Mapping[str, Any],
    *,
    tokenizer: str | None = None,
    resume: bool = False,
    start: str | Path | None = None,
    teacher: str | Path | None = None,
) -> Request:
    """Make the request for the model `name`, or with `resume` for the run in the directory `name`.

    A run is resumed with its own settings; `settings` may only give it more steps. With `start`, the path of a trained
    model, the run has its settings, weights and tokenizer; `name` may then be None, its family or the same path.
    `teacher` is the path of a model to learn from. Raises an `LmzooError` of one line.
    """
    prolong = resume and not settings.keys().isdisjoint({"steps", "train.steps"})
    given, text = None if out is None else arguments.path("out", out), DEFAULT_DATA if data is None else data
    if start is not None:
        place = arguments.path(START, start)
        spec = start_spec(name, place, text, settings, tokenizer=tokenizer, teacher=teacher)
        return Request(spec, given or RUNS / f"{place.resolve().name}-tuned", resume, prolong)
    if name is None:
        raise ConfigError("name must be given: a model, or a run to resume")
    run = arguments.path("name", name)
    known = name in registry.list_models()
    if not known and is_run(run):
        if not resume:
            raise ConfigError(f"{run} is a run: --resume continues it, --from {run} trains its model further")
        if given is not None and given.resolve() != run.resolve():
            raise ConfigError(f"out={given} cannot be given with the run {run}, which continues where it is")
        spec = read_spec(run, settings, data=data, tokenizer=tokenizer, teacher=teacher)
        return Request(spec, run, resume, prolong)
    if not known and os.path.isfile(run / reading.MANIFEST):
        raise ConfigError(f"{run} is a saved model: --from {run} trains it further")
    if teacher is not None:
        raise ConfigError(f"{TEACHER}={teacher} needs a trained model to start from: --from RUN|MODEL")
    if resume and not known and (run.parts[1:] or os.path.lexists(run)):
        raise ConfigError(f"{run} is not a run: there is nothing to resume")
    spec = make_spec(name, text, tokenizer=tokenizer, overrides=settings)
    return Request(spec, given or RUNS / name, resume, prolong)
