"""Child processes to be killed, forked from one that has torch imported, so that each starts within milliseconds.

The parent must never run a backward pass, since torch's autograd does not survive a fork: children do all training.
"""

from __future__ import annotations

import os
import select
import signal
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field

from lmzoo.errors import LmzooError
from lmzoo.train.events import CheckpointEvent, EvalEvent, Event, SavingEvent, StartEvent, StepEvent
from lmzoo.train.signals import Interrupted

PATIENCE = 60.0  # seconds after which a child counts as hung
DONE, CRASHED, REFUSED, INTERRUPTED = 0, 1, 2, 130  # exit codes of a child that was not killed

LINE_BREAK = "⏎"  # replaces line breaks in the messages of a child

Say = Callable[[str], None]
_write = os.write  # `faults` replaces os.write, which the messages of a child must not use


@dataclass
class Child:
    """A child process and its messages so far, one per line. A signal that it gets appears as a line "signal"."""

    pid: int
    words: int  # the pipe of its messages
    lines: list[str] = field(default_factory=list)
    code: int | None = None  # negative: killed by that signal
    _part: bytes = b""

    def read(self, seconds: float) -> bool:
        """Read the next messages, waiting at most `seconds`. Return False when the child has closed the pipe."""
        if not select.select([self.words], [], [], max(0.0, seconds))[0]:
            return True
        piece = os.read(self.words, 1 << 16)
        for number in (signal.SIGINT, signal.SIGTERM):  # what `set_wakeup_fd` writes
            piece = piece.replace(bytes([number]), b"\nsignal\n")
        *whole, self._part = (self._part + piece).split(b"\n")
        self.lines += [line.decode() for line in whole if line]
        return bool(piece)

    def wait_for(self, word: str, times: int = 1) -> bool:
        """Wait until `times` more lines that begin with `word` have come. Return False if the child ends before."""
        until, seen, at = time.monotonic() + PATIENCE, 0, len(self.lines)
        while seen < times:
            if not self.read(until - time.monotonic()) or time.monotonic() > until:
                return False
            seen += sum(line.startswith(word) for line in self.lines[at:])
            at = len(self.lines)
        return True

    def signal(self, number: int) -> None:
        """Send a signal to the child."""
        os.kill(self.pid, number)

    def finish(self) -> Child:
        """Wait for the end of the child; kill it if it hangs."""
        until = time.monotonic() + PATIENCE
        while self.read(until - time.monotonic()):
            if time.monotonic() > until:
                self.lines.append(f"crash: hung for {PATIENCE:.0f} s")
                self.signal(signal.SIGKILL)
                break
        os.close(self.words)
        self.code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self

    def said(self, word: str) -> list[str]:
        """Return the rest of each line that begins with `word`."""
        return [line.removeprefix(word).strip() for line in self.lines if line.startswith(word)]

    @property
    def error(self) -> str:
        """The error that ended the child, as "Type: message"; empty if none."""
        return next(iter([*self.said("error"), *self.said("crash")]), "")


def fork(work: Callable[[Say], object]) -> Child:
    """Run `work` in a child, which reports its end: "error ..." for an `LmzooError`, "crash ..." for any other."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writing)
        return Child(pid, reading)
    code = CRASHED
    try:
        os.close(reading)
        os.set_blocking(writing, False)
        signal.set_wakeup_fd(writing)

        def say(text: str) -> None:
            _write(writing, (text.replace("\n", LINE_BREAK) + "\n").encode())

        try:
            work(say)
            code = DONE
        except Interrupted as stop:
            say(f"interrupted {stop}")
            code = INTERRUPTED
        except LmzooError as error:
            say(f"error {type(error).__name__}: {error}")
            code = REFUSED
        except BaseException:
            say(f"crash {traceback.format_exc()[-1500:]}")
    finally:
        os._exit(code)
    raise AssertionError("os._exit never returns")


def run(work: Callable[[Say], object]) -> Child:
    """Run `work` in a child, and wait for its end."""
    return fork(work).finish()


def narrator(say: Say) -> Callable[[Event], None]:
    """Make a listener that reports the events of a run: start N, step N, val N, saving N, saved N."""

    def listen(event: Event) -> None:
        if isinstance(event, StartEvent):
            say(f"start {event.step}")
        elif isinstance(event, StepEvent):
            say(f"step {event.step}")
        elif isinstance(event, EvalEvent):
            say(f"val {event.step}")
        elif isinstance(event, SavingEvent):
            say(f"saving {event.step}")
        elif isinstance(event, CheckpointEvent):
            say(f"saved {event.step}")

    return listen
