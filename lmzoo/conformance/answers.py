"""The side of the new process that `fresh.FreshProcess` starts: answers its requests (see there for their form)."""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file

from lmzoo import configs, registry
from lmzoo.conformance.report import described
from lmzoo.model import LanguageModel
from lmzoo.storage import models

if TYPE_CHECKING:
    from lmzoo.conformance.tiny import Subject  # imports this module


def answer(path: Path, cls: type[LanguageModel] | None = None) -> None:
    """Loads the model that the folder `path` describes, and writes its logits into the folder.

    `cls` must be given if the class cannot be imported. Raises whatever the model raises.
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
    """Answers the requests in these folders; an exception is written into its folder, and the next one is answered."""
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

    answers, sys.stdout = sys.stdout, sys.stderr  # so that what a model prints is not read as an answer
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
    os._exit(0)  # without the garbage collection at the end of Python, which would go through all of torch
