"""An engine that runs cells as tasks of Ray, on this machine or on the cluster that RAY_ADDRESS names.

All machines of a cluster need the directory of the comparison and the text under the same paths. Ray does a task again
whose worker was killed; the run continues from its last checkpoint.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from typing import Any

from lmzoo.compare.engine import ATTEMPTS, STOP_SECONDS, Done, Job, Setup, Worker, lost, make_setup
from lmzoo.compare.measure import Measurer
from lmzoo.errors import ConfigError


class RayEngine:
    """Runs at most `workers` tasks at once, with `threads` CPU cores each."""

    def __init__(self, measurer: Measurer, workers: int, threads: int) -> None:
        """Connect to Ray, or start it on this machine. Raises `ConfigError` if that fails."""
        import ray

        self.workers = workers
        self._ray: Any = ray
        self._own = not ray.is_initialized()
        if self._own:
            local: dict[str, Any] = {"num_cpus": workers * threads, "include_dashboard": False}
            more = {} if os.environ.get("RAY_ADDRESS") else local
            try:
                ray.init(log_to_driver=False, logging_level=logging.ERROR, **more)
            except (ConnectionError, RuntimeError, ValueError) as error:
                raise ConfigError(f"engine='ray': cannot connect to Ray: {error}") from error
        self._task = ray.remote(num_cpus=threads, max_retries=ATTEMPTS - 1)(work)
        self._setup = ray.put(make_setup(measurer, threads))
        self._jobs: dict[Any, Job] = {}

    def submit(self, job: Job) -> None:
        """Make the job a task."""
        cell = dataclasses.replace(job.cell, run=job.cell.run.absolute())  # a worker has another working directory
        self._jobs[self._task.remote(self._setup, dataclasses.replace(job, cell=cell))] = job

    def wait(self, seconds: float) -> list[Done]:
        """Return the tasks that have ended."""
        ended, _ = self._ray.wait(list(self._jobs), timeout=seconds)
        found = []
        for task in ended:
            job = self._jobs.pop(task)
            try:
                found.append(dataclasses.replace(self._ray.get(task), job=job))
            except self._ray.exceptions.WorkerCrashedError:
                raise lost(job.label) from None
        return found

    def stop(self) -> None:
        """Interrupt the tasks, which save, and disconnect from Ray."""
        for task in self._jobs:
            self._ray.cancel(task)
        if self._jobs:
            self._ray.wait(list(self._jobs), num_returns=len(self._jobs), timeout=STOP_SECONDS)
        if self._own:
            self._ray.shutdown()


_workers: list[Worker] = []  # of this process, which makes one for all of its tasks


def work(setup: Setup, job: Job) -> Done:
    """Do a job; the task of Ray."""
    if not _workers:
        _workers.append(Worker(setup))
    return _workers[0].do(job)
