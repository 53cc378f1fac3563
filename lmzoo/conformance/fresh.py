"""A new Python process that loads saved models, and runs checks beside the caller. `FreshProcess` is the caller's side.

Both sides send JSON objects, one per line. A request is `{"load": folder}`, `{"subject": ...}` or `{"check": name}`. A
folder to load holds `request.json` and `idx.safetensors`; the process writes `logits.safetensors` into it, or
`error.txt` with the reason in one line.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file

from lmzoo import configs, registry
from lmzoo.conformance.report import Fault, Result, described
from lmzoo.model import LanguageModel
from lmzoo.storage import models

if TYPE_CHECKING:
    from lmzoo.conformance.tiny import Subject  # imports this module

# Without garbage collection torch and its compiler are imported in two thirds of the time; the process is short-lived.
_START = "import gc; gc.disable(); from lmzoo.conformance import fresh; fresh.main()"


class FreshProcess:
    """A new Python process that answers requests. Start it early: it imports torch, which takes seconds."""

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
        """Sends the request in the folder `path` without waiting for the answer. Raises `Fault` if it has ended."""
        self._send({"load": str(path)})
        self._loading += 1

    def end_loading(self) -> None:
        """Waits for the answers to `begin_loading`. Raises `Fault` if the process ends."""
        if self._loading:
            with self._lock:
                while self._loading:
                    self._receive()
                    self._loading -= 1

    def load(self, paths: Iterable[Path]) -> None:
        """Has the requests in the folders `paths` answered. Raises `Fault` if the process ends."""
        for path in paths:
            self.begin_loading(path)
            self.end_loading()

    def use(self, subject: Subject) -> None:
        """Says which subject `run` is about. Its class must be one that another process can import."""
        about = {"settings": subject.settings, "name": subject.name, "thorough": subject.thorough, "seed": subject.seed}
        self._ask({"subject": {**reference(subject.cls), **about}})

    def run(self, check: str) -> Result:
        """Runs one check. Raises `Fault` if the process ends."""
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
        with suppress(ValueError):  # the caller has closed the process, in another thread: nobody reads the reason
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
    """Returns how another process finds the class.

    A class made by `type(...)` may name another module than the one that holds it: then that of a base class, or of its
    config, is named, which registers it.
    """
    home = cls.__module__
    if not _holds(home, cls):
        others = (base.__module__ for base in (*cls.__mro__[1:], cls.config_class))
        home = next((name for name in others if name.partition(".")[0] not in _LIBRARIES), home)
    module = sys.modules[home]
    derived = cls.family if cls.family.endswith(registry.TRANSPLANT) else None  # its module does not hold it
    place = {"module": home, "file": getattr(module, "__file__", None), "class": cls.__qualname__}
    return {**place, "derived": derived, "family": cls.family}


def _holds(name: str, cls: type[LanguageModel]) -> bool:
    """True if the module `name` has the class under its qualified name, or is a derived family, which it need not."""
    found: Any = sys.modules.get(name)
    for part in cls.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is cls or cls.family.endswith(registry.TRANSPLANT)


def answer(path: Path, cls: type[LanguageModel] | None = None) -> None:
    """Loads the model that the folder `path` describes and writes its logits there.

    `cls` must be given if the class cannot be imported.
    """
    request = json.loads((path / "request.json").read_text(encoding="utf-8"))
    torch.set_num_threads(request["threads"])
    if request["registered"]:
        _import(request)
        model = models.load_model(path / "model")
    else:
        cls = cls or find_class(request)
        model = cls(configs.build(cls.config_class, request["config"]))
        model.load_state_dict(load_file(path / "model.safetensors"), strict=False)
    with torch.no_grad():
        logits_BTV = model.eval()(load_file(path / "idx.safetensors")["idx"]).logits
    save_file({"logits": logits_BTV.contiguous()}, path / "logits.safetensors")


def answer_all(paths: Iterable[Path]) -> None:
    """Answers the requests one after another; an exception ends only the request that raised it."""
    for path in paths:
        try:
            answer(path)
        except Exception as error:  # a user's model may raise any exception
            (path / "error.txt").write_text(described(error), encoding="utf-8")


def find_class(request: dict[str, Any]) -> type[LanguageModel]:
    """Imports the class: by its module and qualified name, or a derived one by its family."""
    found: Any = _import(request)
    if request["derived"] is not None:
        return registry.model_class(request["derived"])
    for part in request["class"].split("."):
        found = getattr(found, part, None)
    return found or registry.model_class(request["family"])


def _import(request: dict[str, Any]) -> Any:
    """Imports the module of the class: from a plug-in file, or from the caller's import path."""
    name = request["module"]
    if name.startswith("lmzoo_plugin_"):
        registry.load_plugin(request["file"])
        return sys.modules[name]
    return importlib.import_module(name)


def main() -> None:
    """Answers requests until standard input ends."""
    from lmzoo.conformance import suite, tiny  # they import this module

    answers, sys.stdout = sys.stdout, sys.stderr  # what a model prints is no answer
    checks = {check.name: check for check in suite.CHECKS}
    subject: Subject | None = None
    for line in sys.stdin:
        request, reply = json.loads(line), dict[str, Any]()
        if "load" in request:
            answer_all([Path(request["load"])])
        elif "subject" in request:
            about = request["subject"]
            subject = tiny.Subject(find_class(about), about["settings"], about["name"])
            subject.thorough, subject.seed = about["thorough"], about["seed"]
            torch.set_num_threads(1)  # the caller needs the others
        else:
            assert subject is not None, "the subject must be sent before the first check"
            reply = asdict(suite.run_check(checks[request["check"]], subject))
        answers.write(json.dumps(reply) + "\n")
        answers.flush()
    os._exit(0)  # else Python would look for garbage in all of torch before the process ends
