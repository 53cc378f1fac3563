"""Runs one case within limits of time and memory, and says which promise it broke.

A FIFO with known content lies in the working folder: its content must still be there after every case, so that a read
of it is seen, and it must still be a FIFO. A case that is refused must leave every other file as it was.
"""

from __future__ import annotations

import contextlib
import io
import os
import resource
import shutil
import signal
import stat
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import torch

from lmzoo import entries, humanize, registry
from lmzoo.errors import LmzooError

SECONDS = 30  # on a busy machine
MEMORY = 1 << 30  # bytes of resident memory by which a case may grow the process
ROOM = 6 << 30  # bytes of address space of the process above its size at the start
SECRET = b"content of the pipe"
FAULTS = ("traceback", "hang", "memory", "written", "not regular", "message")


class Hang(BaseException):
    """The time of a case is over; no `except Exception` may catch it."""


class Exit(Exception):
    """A command ended with an exit code; its output is kept, and what it wrote to a terminal without color."""

    def __init__(self, code: int, err: str, shown: str = "") -> None:
        super().__init__(f"exit code {code}: {err}")
        self.code, self.err, self.shown = code, err, shown


class Screen(io.StringIO):
    """Standard output that says that it is a terminal."""

    def isatty(self) -> bool:
        """Returns True."""
        return True


@dataclass(frozen=True)
class Case:
    """A description of a case, from which it can be repeated, and the function that runs it."""

    what: str
    work: Callable[[], object]
    seconds: int = SECONDS


@dataclass(frozen=True)
class Place:
    """The folders of a fuzz run: `work` is made anew for each case, `base` holds files that no case changes."""

    root: Path

    @property
    def base(self) -> Path:
        return self.root / "base"

    @property
    def work(self) -> Path:
        return self.root / "work"

    @property
    def pipe(self) -> Path:
        return self.work / "pipe.txt"


def limit_memory() -> None:
    """Limit the address space of this process, for a case that takes memory without end."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + ROOM, resource.RLIM_INFINITY))


def run(case: Callable[[], Case], place: Place) -> tuple[str, str, str]:
    """Make and run a case; returns (description, outcome, details). The outcome is "done", "refused" or a fault."""
    shutil.rmtree(place.work, ignore_errors=True)
    place.work.mkdir()
    os.mkfifo(place.pipe)
    descriptor = os.open(place.pipe, os.O_RDWR | os.O_NONBLOCK)
    os.write(descriptor, SECRET)
    before_memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        with _restored():
            os.chdir(place.work)  # relative paths of a case stay in its folder
            made = case()
            before = _content(place.work)
            outcome, details = _watched(made)
        if outcome == "refused" and _content(place.work) != before and "training stops" not in details:
            outcome, details = "written", f"{sorted(set(_content(place.work)) ^ set(before))[:3]} after: {details}"
        if not stat.S_ISFIFO(os.lstat(place.pipe).st_mode) or _read(descriptor) != SECRET:
            outcome, details = "not regular", details
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_memory) * 1024
        if grown > MEMORY:
            outcome, details = "memory", f"{grown / 1e9:.1f} GB"
        return made.what, outcome, details
    finally:
        os.close(descriptor)


def _watched(case: Case) -> tuple[str, str]:
    def over(_number: int, _frame: FrameType | None) -> None:
        raise Hang

    signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, case.seconds)
    try:
        case.work()
    except Hang:
        return "hang", f"more than {case.seconds} s"
    except LmzooError as error:
        return _judged(str(error))
    except Exit as error:
        if error.code not in (0, 1, 2, 130):  # 130: a plug-in may raise KeyboardInterrupt
            return "traceback", str(error)
        if not _is_plain(error.shown):
            return "message", repr(error.shown[-2000:])
        return _judged(error.err.removesuffix("\n").rpartition("\n")[2]) if error.code == 2 else ("done", error.err)
    except MemoryError:
        return "memory", traceback.format_exc(limit=-3)
    except BaseException as error:
        fault = "memory" if "allocate memory" in str(error) else "traceback"
        return fault, "".join(traceback.format_exception(error)[-6:])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return "done", ""


def _judged(message: str) -> tuple[str, str]:
    """A refusal must be one short line that a terminal shows as it is."""
    plain = message and len(message) < 3000 and "\n" not in message and _is_plain(message)
    return ("refused" if plain else "message"), message


def _is_plain(text: str) -> bool:
    """True for a text whose characters a terminal shows, and does not obey or hide."""
    return all(char.isprintable() or char == "\n" or ord(char) > 0x2FFF for char in text)


def escaped(text: str) -> str:
    """Returns a text that a terminal shows as it is."""
    return humanize.plain(text, keep="\n")


def command(*arguments: str) -> None:
    """Run the command line in this process, on a terminal without color; raises `Exit`."""
    from lmzoo import cli

    out, err = Screen(), io.StringIO()
    os.environ["NO_COLOR"] = "1"
    sys.argv = ["lmzoo", *arguments]
    code = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            cli.main()
        except SystemExit as left:
            code = left.code if isinstance(left.code, int) else 1
    raise Exit(code, err.getvalue(), out.getvalue())


@contextlib.contextmanager
def _restored() -> Iterator[None]:
    """Restore what a case may change in the process: plug-ins, environment, threads, working folder, warnings."""
    classes, broken = dict(registry._classes), dict(registry._broken_plugins)
    environment, folder, threads, argv = dict(os.environ), os.getcwd(), torch.get_num_threads(), sys.argv
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shown = warnings.showwarning
        try:
            yield
        finally:
            warnings.showwarning, sys.argv = shown, argv
            os.chdir(folder)
            for names, kept in ((registry._classes, classes), (registry._broken_plugins, broken)):
                names.clear()
                names.update(kept)  # type: ignore[arg-type]
            os.environ.clear()
            os.environ.update(environment)
            torch.set_num_threads(threads)
            entries.read.cache_clear()


def _content(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Returns kind, size and time of change of every file below a folder."""
    found: dict[str, tuple[int, int, int]] = {}
    for place, folders, names in os.walk(os.fsencode(folder)):
        for name in (*folders, *names):
            path = os.path.join(place, name)
            status = os.lstat(path)
            size, changed = (0, 0) if stat.S_ISDIR(status.st_mode) else (status.st_size, status.st_mtime_ns)
            found[repr(path)] = (stat.S_IFMT(status.st_mode), size, changed)
    return found


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 1 << 16)
    except BlockingIOError:
        return b""
