"""Jobs and the engines that do them, for comparisons and probings: the protocol, and the engine of this process.

`processes.Processes` and `ray_engine.RayEngine` do several jobs at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar


class HasLabel(Protocol):
    """A job that can be pickled, with a name for messages."""

    @property
    def label(self) -> str:
        """The name of the job."""
        ...


JobT = TypeVar("JobT", bound=HasLabel)
DoneT = TypeVar("DoneT")


class Engine(Protocol[JobT, DoneT]):
    """Runs jobs. The caller submits at most `workers` at a time; they begin in their order of submission."""

    workers: int

    def submit(self, job: JobT) -> None:
        """Begin a job."""

    def wait(self, seconds: float) -> list[DoneT]:
        """Return the jobs that have ended; waits for one, at most `seconds`. Raises `LostProcessError`."""
        ...

    def stop(self) -> None:
        """Stop all jobs, and return when their runs have saved."""


class Alone(Generic[JobT, DoneT]):
    """An engine that does each job in this process, by the function `do`, when it is submitted."""

    workers = 1

    def __init__(self, do: Callable[[JobT], DoneT]) -> None:
        self._do = do
        self._done: list[DoneT] = []

    def submit(self, job: JobT) -> None:
        """Do the job."""
        self._done.append(self._do(job))

    def wait(self, seconds: float) -> list[DoneT]:  # noqa: ARG002  (nothing to wait for)
        """Return the jobs that were submitted since the last call."""
        done = [*self._done]
        self._done.clear()
        return done

    def stop(self) -> None:
        """Do nothing: no job is running."""
