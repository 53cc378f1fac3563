"""The jobs of a comparison, and what a worker needs to do them.

A job checks a model, measures what its runs will cost, or makes the results of a cell. These are in the run directory
of the cell, so a job that is lost with its worker is done again from the last checkpoint.
"""

from __future__ import annotations

import dataclasses
import pickle
import sys
import traceback
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from lmzoo import plugins, registry
from lmzoo.compare.forecast import Cost
from lmzoo.compare.grid import Cell, Measured
from lmzoo.compare.measure import Measurer
from lmzoo.compare.results import ModelResult
from lmzoo.data.corpora import Corpus
from lmzoo.data.store import Documents, open_store
from lmzoo.errors import LostProcessError
from lmzoo.runs.inputs import PreparedData
from lmzoo.runs.lock import wait_until_unlocked
from lmzoo.train.events import Event, NoteEvent

ATTEMPTS = 3  # number of workers that may be lost with a job
STOP_SECONDS = 25.0  # time for a run to finish its step and save


@dataclass(frozen=True)
class Job:
    """Check the model of a cell, time it, or measure the cell: see the methods of `Measurer`.

    A cell is measured by `Measurer.measure` with `config`, or with `until` by `Measurer.measure_part`.
    """

    kind: Literal["check", "time", "measure"]
    cell: Cell
    config: Mapping[str, Any] | None = None
    until: int | None = None

    @property
    def label(self) -> str:
        """The name of the cell."""
        return self.cell.label


@dataclass(frozen=True)
class Done:
    """The end of a job: its value, the problem of a plug-in that failed, or an error that ends the comparison."""

    job: Job
    value: ModelResult | Cost | Measured | None = None
    problem: str = ""
    error: BaseException | None = None
    notes: Sequence[str] = ()


def execute(measurer: Measurer, job: Job) -> Done:
    """Do a job. An interrupt of its run is raised, every other error returned."""
    try:
        if job.kind == "check":
            return Done(job, measurer.check(job.cell))
        if job.kind == "time":
            return Done(job, measurer.time(job.cell))
        if job.until is not None:
            return Done(job, measurer.measure_part(job.cell, job.until))
        return Done(job, measurer.measure(job.cell, job.config))
    except (Exception, SystemExit) as error:  # one model of a plug-in must not abandon the others
        problem = plugins.blame(error, registry.registered_classes())
        return Done(job, error=error) if problem is None else Done(job, problem=problem)


@dataclass(frozen=True)
class Setup:
    """All that a worker in another process needs: plain values, which can be pickled."""

    measurer: Measurer
    threads: int
    plugins: Sequence[str]  # files and modules that registered models
    documents: Documents

    def make_worker(self) -> Worker:
        """Make a worker in this process."""
        return Worker(self)

    def failed(self, job: Job, error: BaseException) -> Done:
        """Return the end of a job whose worker could not be made."""
        return Done(job, error=error)


def make_setup(measurer: Measurer, threads: int) -> Setup:
    """Return the setup of workers. They map the tokens from the cache, and send their messages with the results."""
    data = dataclasses.replace(measurer.data, store=None)
    store = measurer.data.store
    documents: Documents = "joined" if store is None or store.val.ends is None else "isolated"
    return Setup(dataclasses.replace(measurer, data=data, listeners=()), threads, plugin_sources(), documents)


def plugin_sources() -> list[str]:
    """Return the files and modules that registered models in this process, as `registry.load_plugin` takes them."""
    sources = []
    for cls in registry.registered_classes():
        if not cls.__module__.startswith(("lmzoo.", "__main__")):
            file = getattr(sys.modules[cls.__module__], "__file__", None)
            sources.append(file if cls.__module__.startswith("lmzoo_plugin_") and file else cls.__module__)
    return sources


class Worker:
    """Does jobs in a process of its own, with its own part of the CPU cores."""

    def __init__(self, setup: Setup) -> None:
        torch.set_num_threads(setup.threads)
        for source in setup.plugins:
            registry.load_plugin(source)
        self._notes: list[str] = []
        data = _opened(setup.measurer.data, setup.documents)
        self._measurer = dataclasses.replace(setup.measurer, data=data, listeners=[self._hear])

    def do(self, job: Job) -> Done:
        """Do a job; the result can be pickled."""
        self._notes.clear()
        with warnings.catch_warnings(record=True) as caught:
            wait_until_unlocked(job.cell.run, STOP_SECONDS)  # of a comparison that was killed
            done = execute(self._measurer, job)
        notes = [*self._notes, *(f"warning: {warning.message}" for warning in caught)]
        error = None if done.error is None else portable_error(done.error)
        return dataclasses.replace(done, error=error, notes=[f"{job.label}: {n}" for n in notes])

    def _hear(self, event: Event) -> None:
        if isinstance(event, NoteEvent):
            self._notes.append(event.message)


def _opened(data: PreparedData, documents: Documents) -> PreparedData:
    """Return the data with its tokens, which the cache holds."""
    assert isinstance(data.corpus, Corpus)
    return dataclasses.replace(data, store=open_store(data.corpus, data.tokenizer, documents=documents))


def portable_error(error: BaseException) -> BaseException:
    """Return the error with its traceback as a note, or what it says if it cannot be pickled."""
    error.add_note("".join(traceback.format_exception(error)))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError("".join(traceback.format_exception(error)))
    return error


def lost(label: str) -> LostProcessError:
    """Return the error for the job `label` that was lost with its workers."""
    return LostProcessError(
        f"the process that made {label} was killed {ATTEMPTS} times (too little memory for all workers?): the "
        "same command continues, --workers 1 makes one run at a time"
    )
