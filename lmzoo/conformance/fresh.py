"""A new Python process that loads saved models, and runs checks beside the caller. `answers` is what runs in it.

Both sides send JSON objects, one per line. A request is `{"load": folder}`, `{"subject": ...}` or `{"check": name}`. A
folder to load holds `request.json` and `idx.safetensors`; the process writes `logits.safetensors` into it, or
`error.txt` with the reason in one line.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from lmzoo import registry
from lmzoo.conformance.report import Fault, Result
from lmzoo.model import LanguageModel

if TYPE_CHECKING:
    from lmzoo.conformance.tiny import Subject  # imports this module

# Without garbage collection torch and its compiler are imported in two thirds of the time; the process is short-lived.
_START = "import gc; gc.disable(); from lmzoo.conformance import answers; answers.main()"


class FreshProcess:
    """A new Python process that answers requests. Start it early: it imports torch, which takes seconds.

    A method that sends or reads raises `Fault` if the process has ended.
    """

    def __init__(self) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  closed by `close`
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=environment,
        )
        self._lock = threading.Lock()
        self._loading = 0  # folders whose answer has not been read

    def begin_loading(self, path: Path) -> None:
        """Sends the request in the folder `path` without waiting for the answer."""
        self._send({"load": str(path)})
        self._loading += 1

    def end_loading(self) -> None:
        """Waits for the answers to `begin_loading`."""
        if self._loading:
            with self._lock:
                while self._loading:
                    self._receive()
                    self._loading -= 1

    def load(self, paths: Iterable[Path]) -> None:
        """Sends the requests in the folders `paths`, one at a time, and waits for their answers."""
        for path in paths:
            self.begin_loading(path)
            self.end_loading()

    def use(self, subject: Subject) -> None:
        """Sets the subject of `run`. Another process must be able to import its class (`can_be_imported`)."""
        about = {"settings": subject.settings, "name": subject.name, "thorough": subject.thorough, "seed": subject.seed}
        self._ask({"subject": {**reference(subject.cls), **about}})

    def run(self, check: str) -> Result:
        """Runs one check on the subject of `use`, and waits for its result."""
        return Result(**self._ask({"check": check}))

    def _ask(self, request: dict[str, Any]) -> Any:
        self.end_loading()
        with self._lock:
            self._send(request)
            return self._receive()

    def _send(self, request: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except (OSError, ValueError) as error:  # the process has ended, or was closed
            raise self._fault() from error

    def _receive(self) -> Any:
        assert self._process.stdout is not None
        try:
            return json.loads(self._process.stdout.readline())
        except (OSError, ValueError) as error:
            raise self._fault() from error

    def _fault(self) -> Fault:
        self._process.kill()
        self._process.wait()
        lines: list[str] = []
        with suppress(ValueError):  # the caller has closed the process in another thread, and needs no reason
            self._errors.seek(0)
            lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return Fault(f"a fresh process cannot load the saved model: {lines[-1] if lines else 'no message'}")

    def close(self) -> None:
        """Ends the process, if it is still running."""
        if self._process.poll() is None:
            self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout, self._errors):
            if pipe is not None:
                with suppress(OSError):  # a pipe that cannot be flushed, because the process has ended
                    pipe.close()
        self._process.wait()

    def __enter__(self) -> FreshProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def can_be_imported(cls: type[LanguageModel]) -> bool:
    """False for a class that another process cannot import: of the main script, or defined inside a function."""
    return cls.__module__ != "__main__" and "<locals>" not in cls.__qualname__


_LIBRARIES = ("lmzoo", "torch", "abc", "builtins")


def reference(cls: type[LanguageModel]) -> dict[str, Any]:
    """Returns where another process finds the class: the part of a request that `answers.find_class` reads.

    A class made by `type(...)` may name a module that does not hold it. Then the module of a base class, or of its
    config, is returned: importing it registers the class.
    """
    home = cls.__module__
    if not _holds(home, cls):
        others = (base.__module__ for base in (*cls.__mro__[1:], cls.config_class))
        home = next((name for name in others if name.partition(".")[0] not in _LIBRARIES), home)
    module = sys.modules[home]
    derived = cls.family if cls.family.endswith(registry.TRANSPLANT) else None  # made anew, by the registry
    place = {"module": home, "file": getattr(module, "__file__", None), "class": cls.__qualname__}
    return {**place, "derived": derived, "family": cls.family}


def _holds(name: str, cls: type[LanguageModel]) -> bool:
    """True if the module `name` has the class under its qualified name; also for a derived family, which none has."""
    found: Any = sys.modules.get(name)
    for part in cls.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is cls or cls.family.endswith(registry.TRANSPLANT)
