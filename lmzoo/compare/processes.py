"""An engine that runs jobs in several processes of this machine, each pinned to its own CPU cores.

An executor of `concurrent.futures` gives up all jobs when one of its processes is killed; here the job alone is done
again. The workers are forked from a server that has imported torch once and never used it, since a process that has
used OpenMP cannot be forked. They end with their parent, whatever ends it: a run saves its state first.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Generic, Protocol

from lmzoo.compare.engine import ATTEMPTS, STOP_SECONDS, lost, portable_error
from lmzoo.compare.jobs import DoneT, JobT
from lmzoo.errors import LostProcessError
from lmzoo.train.signals import Interrupted


class DoesJobs(Protocol[JobT, DoneT]):
    """Does jobs in a process of its own."""

    def do(self, job: JobT) -> DoneT:
        """Do a job; the result can be pickled."""
        ...


class ProcessSetup(Protocol[JobT, DoneT]):
    """All that a worker in another process needs: plain values, which can be pickled."""

    def make_worker(self) -> DoesJobs[JobT, DoneT]:
        """Make the worker, in its process."""
        ...

    def failed(self, job: JobT, error: BaseException) -> DoneT:
        """Returns the end of a job whose worker could not be made."""
        ...


def available_cores() -> list[int]:
    """Return the numbers of the CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def divide_cores(cores: Sequence[int], workers: int) -> list[list[int]]:
    """Divide the cores among the workers, each at least one: with more workers than cores, some share one."""
    if workers >= len(cores):
        return [[cores[n % len(cores)]] for n in range(workers)]
    return [list(cores[n * len(cores) // workers : (n + 1) * len(cores) // workers]) for n in range(workers)]


@dataclass(frozen=True, eq=False)
class _Process:
    process: BaseProcess
    connection: Connection
    cores: Sequence[int]


class Processes(Generic[JobT, DoneT]):
    """Runs jobs in `workers` processes, which are started when they are first needed."""

    def __init__(self, setup: ProcessSetup[JobT, DoneT], workers: int) -> None:
        self.workers = workers
        self._setup = setup
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([__name__])
        self._free_cores = divide_cores(available_cores(), workers)
        self._idle: list[_Process] = []
        self._busy: dict[Connection, tuple[_Process, JobT]] = {}
        self._lost: Counter[str] = Counter()

    def submit(self, job: JobT) -> None:
        """Give the job to a worker that is idle or new."""
        while self._idle:
            worker = self._idle.pop()
            try:
                worker.connection.send(job)
            except OSError:  # it was killed while it was idle
                self._free_cores.append(list(worker.cores))
                continue
            self._busy[worker.connection] = (worker, job)
            return
        worker = self._start(self._free_cores.pop())
        worker.connection.send(job)
        self._busy[worker.connection] = (worker, job)

    def wait(self, seconds: float) -> list[DoneT]:
        """Return the jobs that have ended; one whose worker was killed is submitted again."""
        found: list[DoneT] = []
        for connection in wait(list(self._busy), seconds):
            assert isinstance(connection, Connection)
            worker, job = self._busy.pop(connection)
            try:
                found.append(connection.recv())
                self._idle.append(worker)
            except (EOFError, OSError):
                worker.process.join()
                self._free_cores.append(list(worker.cores))
                self._lost[job.label] += 1
                if self._lost[job.label] >= ATTEMPTS:
                    raise lost(job.label) from None
                self.submit(job)
        return found

    def stop(self) -> None:
        """Let all runs save, and end all workers; after `STOP_SECONDS`, or a second signal, they are killed."""
        workers = [*self._idle, *(worker for worker, _ in self._busy.values())]
        self._idle.clear()
        self._busy.clear()
        try:
            for worker in workers:
                worker.process.terminate()
            deadline = time.monotonic() + STOP_SECONDS
            for worker in workers:
                worker.process.join(max(0.0, deadline - time.monotonic()))
        finally:
            for worker in workers:
                worker.process.kill()
                worker.connection.close()

    def _start(self, cores: Sequence[int]) -> _Process:
        ours, theirs = self._context.Pipe()
        arguments = (theirs, self._setup, cores, dict(os.environ))
        process = self._context.Process(target=serve, args=arguments, daemon=True, name="lmzoo worker")
        try:
            process.start()
        except EOFError:  # the server of the workers was killed
            raise LostProcessError(
                "the process that starts the workers was killed (too little memory?): the same command continues"
            ) from None
        theirs.close()
        return _Process(process, ours, cores)


def serve(
    connection: Connection, setup: ProcessSetup[Any, Any], cores: Sequence[int], environment: Mapping[str, str]
) -> None:
    """Do the jobs that come through `connection`, until it is closed or the parent has ended; `main` of a worker."""
    gc.freeze()  # else each run ends with a search for garbage in all imported modules, whose pages are then copied
    os.setpgid(0, 0)  # Ctrl-C in the terminal is for the parent, which stops each worker once
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ.update(environment)  # the server has the environment of its own start
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
    try:
        try:
            worker = setup.make_worker()
        except Exception as error:  # a plug-in that cannot be imported here
            connection.send(setup.failed(connection.recv(), portable_error(error)))
            return
        while True:
            connection.send(worker.do(connection.recv()))
    except (EOFError, OSError, Interrupted):
        return


def _end_with_parent() -> None:
    """Wait for the end of the parent; then let the run save, as after SIGTERM."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(STOP_SECONDS)
    os._exit(1)
