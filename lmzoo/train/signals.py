"""Handles Ctrl-C and SIGTERM: the run finishes its current step, saves a checkpoint and stops."""

from __future__ import annotations

import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from lmzoo.distributed.ranks import Ranks

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """A signal stopped a run, after a checkpoint. A `KeyboardInterrupt`, so that it also ends the calling program."""

    def __init__(self, step: int, path: Path, signal_number: int) -> None:
        self.step, self.path, self.signal_number = step, path, signal_number
        super().__init__(f"stopped after step {step}, saved in {path}; continue with the same command and --resume")


class StopAsked(Exception):
    """A signal came: the trainer, which catches this exception itself, abandons the current evaluation."""


class StopRequest:
    """A signal handler for SIGINT and SIGTERM; all ranks stop at the same step, also when their launcher has died.

    `signal_number` is the number of a signal that any rank had received at the last `look`, or None.
    """

    def __init__(self, ranks: Ranks) -> None:
        self.signal_number: int | None = None
        self._noted, self._ranks = 0, ranks

    def look(self) -> None:
        """Exchange received signals with all ranks; a collective operation, so all ranks must call it."""
        noted = self._noted or (signal.SIGTERM if self._ranks.orphaned else 0)
        self.signal_number = self._ranks.all_reduce_max(noted) or None

    def check(self) -> None:
        """Call `look`, and raise `StopAsked` if any rank has received a signal."""
        self.look()
        if self.signal_number is not None:
            raise StopAsked

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        self._noted = number
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


@contextmanager
def stop_request(ranks: Ranks) -> Generator[StopRequest]:
    """Within the block, the first signal sets a flag and a second one has its default effect.

    The handlers are restored at the end. In a thread other than the main thread, in which Python handles no signals,
    no handler is installed.
    """
    request = StopRequest(ranks)
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, request) for number in SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
