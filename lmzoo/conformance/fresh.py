"""Loads saved models in a separate process and computes their logits, for the check `save_and_load`.

`python -m lmzoo.conformance.fresh` reads the names of folders from its standard input, one per line. Each folder holds
`request.json` and `idx.safetensors`; the process writes `logits.safetensors` into it, or `error.txt` with the reason in
one line. `FreshProcess` is the caller's side.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from lmzoo import configs, registry
from lmzoo.conformance.report import Fault
from lmzoo.model import LanguageModel
from lmzoo.storage import models


class FreshProcess:
    """A new Python process that loads saved models; it can be started early, because starting it takes seconds."""

    def __init__(self) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "lmzoo.conformance.fresh"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def load(self, paths: Sequence[Path]) -> None:
        """Has the requests in the folders `paths` answered, and ends the process. Raises `Fault` if it fails."""
        _, errors = self._process.communicate("".join(f"{path}\n" for path in paths), timeout=300)
        if self._process.returncode:
            last = (errors.strip().splitlines() or ["no message"])[-1]
            raise Fault(f"a fresh process cannot load the saved model: {last}")

    def close(self) -> None:
        """Ends the process, if it is still running."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate()


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
            first = (str(error).splitlines() or [""])[0]
            (path / "error.txt").write_text(f"{type(error).__name__}: {first}", encoding="utf-8")


def find_class(request: dict[str, Any]) -> type[LanguageModel]:
    """Imports the class by its module and qualified name."""
    found: Any = _import(request)
    for part in request["class"].split("."):
        found = getattr(found, part)
    return found


def _import(request: dict[str, Any]) -> Any:
    """Imports the module of the class: from a plug-in file, or from the caller's import path."""
    name = request["module"]
    if name.startswith("lmzoo_plugin_"):
        registry.load_plugin(request["file"])
        return sys.modules[name]
    return importlib.import_module(name)


if __name__ == "__main__":
    answer_all(Path(line.rstrip("\n")) for line in sys.stdin)
