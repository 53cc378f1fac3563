"""Ctrl-C and SIGTERM ask a run to stop; it does so after the step it is in, with everything saved."""

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
    """A run was asked to stop, and stopped with a checkpoint. As Ctrl-C does, it ends whatever called the run."""

    def __init__(self, step: int, path: Path, signal_number: int) -> None:
        self.step, self.path, self.signal_number = step, path, signal_number
        super().__init__(f"stopped after step {step}, saved in {path}; go on with the same command and --resume")


class StopAsked(Exception):
    """A signal came: what is under way is given up. Never leaves the trainer."""


class StopRequest:
    """`signal_number` is that of a signal that one of the ranks has got, since all looked, or None.

    Several ranks stop together, also when their launcher is gone.
    """

    def __init__(self, ranks: Ranks) -> None:
        self.signal_number: int | None = None
        self._noted, self._ranks = 0, ranks

    def look(self) -> None:
        """Ask all ranks; all must do so alike."""
        noted = self._noted or (signal.SIGTERM if self._ranks.orphaned else 0)
        self.signal_number = self._ranks.most(noted) or None

    def check(self) -> None:
        """Look, and raise `StopAsked` when a signal has come."""
        self.look()
        if self.signal_number is not None:
            raise StopAsked

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        self._noted = number
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


@contextmanager
def stop_request(ranks: Ranks) -> Generator[StopRequest]:
    """Within the block, the first signal is only noted and a second one acts as ever; afterwards all is as before.

    In another thread than the main one, which Python gives no signals to, nothing is noted.
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
