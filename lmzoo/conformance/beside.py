"""Runs some of the checks in a second process, while the caller runs the others."""

from __future__ import annotations

import threading
from collections import deque

from lmzoo.conformance.fresh import FreshProcess
from lmzoo.conformance.report import Fault, Result
from lmzoo.conformance.tiny import Subject


class Beside:
    """A thread that makes a fresh process run the last of the `waiting` checks, one by one, until none is left.

    The caller takes checks from the front of `waiting`, and can end the thread early by closing the process. Results
    are written into `found`, by the name of the check.
    """

    def __init__(self, process: FreshProcess, subject: Subject, waiting: deque[str], found: dict[str, Result]) -> None:
        self._process, self._subject, self._waiting, self._found = process, subject, waiting, found
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def join(self) -> None:
        """Waits for the last check. If the process has failed, the check that it ran is in `waiting` again."""
        self._thread.join()

    def _run(self) -> None:
        name = None
        try:
            self._process.use(self._subject)
            while self._waiting:
                try:
                    name = self._waiting.pop()
                except IndexError:  # the caller was faster
                    return
                self._found[name] = self._process.run(name)
        except Fault:  # the process has ended: the caller runs the check, and `save_and_load` reports why
            if name is not None:
                self._waiting.append(name)
