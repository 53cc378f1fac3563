"""Checks that a saved model can be loaded by a new process, in which nothing is left of this one."""

from __future__ import annotations

import json
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lmzoo import configs, registry
from lmzoo.conformance.answers import answer
from lmzoo.conformance.fresh import FreshProcess, can_be_imported, reference
from lmzoo.conformance.measure import require_same_bits
from lmzoo.conformance.report import Fault
from lmzoo.conformance.state_dicts import each_once, unsaved_hint
from lmzoo.conformance.tiny import Sent, Subject
from lmzoo.model import LanguageModel


def send(subject: Subject) -> None:
    """Asks the subject's fresh process to load the model, so that it does this while other checks run."""
    if subject.fresh_process is not None:
        with suppress(Exception):  # `save_and_load` tries again and reports the exception
            folder = tempfile.TemporaryDirectory()
            logits_BTV = save_request(subject, Path(folder.name))
            subject.fresh_process.begin_loading(Path(folder.name))
            subject.sent = Sent(folder, logits_BTV)


def save_and_load(subject: Subject) -> str:
    """Checks that a model, saved and then loaded by a new process, gives bitwise equal logits."""
    if subject.fresh_process is not None and subject.sent is not None:
        subject.fresh_process.end_loading()
        _require_answer(subject, Path(subject.sent.folder.name), subject.sent.logits_BTV)
        return "bitwise equal logits in a fresh process"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        logits_BTV = save_request(subject, path)
        if can_be_imported(subject.cls):
            with FreshProcess() as process:
                process.load([path])
            how = "in a fresh process"
        else:
            answer(path, subject.cls)
            how = "in this process: another one cannot import its class"
        _require_answer(subject, path, logits_BTV)
    return f"bitwise equal logits {how}"


def _require_answer(subject: Subject, path: Path, logits_BTV: Tensor) -> None:
    """Like `require_loaded`; the message also names a buffer that may be the cause."""
    try:
        require_loaded(path, logits_BTV)
    except Fault:
        require_loaded(path, logits_BTV, unsaved_hint(subject))
        raise


def save_request(subject: Subject, path: Path) -> Tensor:
    """Saves the model and a request to compute its logits in the folder `path`; returns the expected logits."""
    model = subject.model()
    idx = subject.tokens(2, min(subject.context, 9))
    save_file({"idx": idx}, path / "idx.safetensors")
    (path / "request.json").write_text(json.dumps(_saved(subject, model, path)), encoding="utf-8")
    with torch.no_grad():  # as in the other process: torch's own layers may use other kernels with gradients
        return model(idx).logits


def require_loaded(path: Path, logits_BTV: Tensor, cause: str = "") -> None:
    """Raises `Fault` unless the answer in the folder `path` is `logits_BTV`; `cause` is the end of its message."""
    error = path / "error.txt"
    if error.exists():
        raise Fault(f"a fresh process cannot load the saved model: {error.read_text(encoding='utf-8')}{cause}")
    loaded_BTV = load_file(path / "logits.safetensors")["logits"]
    where = f"buffers that are not saved, attributes set after __init__{cause}"
    require_same_bits(loaded_BTV, logits_BTV, "the loaded model", where)


def _saved(subject: Subject, model: LanguageModel, path: Path) -> dict[str, Any]:
    """Saves the model in `path`, by its own `save` if it is registered; returns the request to load it."""
    registered = registry.is_registered(subject.cls)
    if registered:
        model.save(path / "model")
    else:
        save_file(each_once(model), path / "model.safetensors")
    return {
        **reference(subject.cls),
        "registered": registered,
        "config": configs.to_dict(model.config),
        "threads": torch.get_num_threads(),  # with another number, sums have another order and other rounding errors
    }
