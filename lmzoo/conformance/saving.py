"""Checks of saving and loading: in a fresh process, with tied weights, and from the meta device."""

from __future__ import annotations

import json
import tempfile
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lmzoo import configs, registry
from lmzoo.conformance.fresh import FreshProcess, answer, can_be_imported, reference
from lmzoo.conformance.measure import difference, require_same_bits
from lmzoo.conformance.report import Fault
from lmzoo.conformance.tiny import Sent, Subject
from lmzoo.model import LanguageModel


def send(subject: Subject) -> None:
    """Has the subject's fresh process load the model while other checks run; `save_and_load` reads the answer."""
    if subject.fresh_process is not None:
        with suppress(Exception):  # `save_and_load` tries again and reports it
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
            how = "in this process: its class cannot be imported by another"
        _require_answer(subject, path, logits_BTV)
    return f"bitwise equal logits {how}"


def _require_answer(subject: Subject, path: Path, logits_BTV: Tensor) -> None:
    """Like `require_loaded`, with the buffers that may be the cause."""
    try:
        require_loaded(path, logits_BTV)
    except Fault:
        require_loaded(path, logits_BTV, _unsaved(subject))
        raise


def save_request(subject: Subject, path: Path) -> Tensor:
    """Saves the model and a request to compute its logits in the folder `path`; returns the expected logits."""
    model = subject.model()
    idx = subject.tokens(2, min(subject.context, 9))
    save_file({"idx": idx}, path / "idx.safetensors")
    (path / "request.json").write_text(json.dumps(_request(subject, model, path)), encoding="utf-8")
    with torch.no_grad():  # as in the other process: torch's own layers may use other kernels with gradients
        return model(idx).logits


def require_loaded(path: Path, logits_BTV: Tensor, cause: str = "") -> None:
    """Raises `Fault` unless the answer in the folder `path` is `logits_BTV`; `cause` is the end of its message."""
    error = path / "error.txt"
    if error.exists():
        raise Fault(f"a fresh process cannot load the saved model{cause or ': ' + error.read_text(encoding='utf-8')}")
    loaded_BTV = load_file(path / "logits.safetensors")["logits"]
    where = f"buffers that are not saved, attributes set after __init__{cause}"
    require_same_bits(loaded_BTV, logits_BTV, "the loaded model", where)


def _unsaved(subject: Subject) -> str:
    """Returns the end of a message about buffers that are not saved, and that differ between two seeds; or ''."""
    names = [name for name, a, b in _unsaved_buffers(subject) if not torch.equal(a, b)]
    drawn = "is not saved (persistent=False) and is drawn at random"
    return f"; the buffer {names[0]} {drawn}: save it, or make it a parameter of the role 'constant'" if names else ""


def _unsaved_buffers(subject: Subject) -> list[tuple[str, Tensor, Tensor]]:
    """Returns the buffers that are not saved, of two models of different seeds."""
    first, second = (
        registry.build_model(subject.cls, subject.config, generator=torch.Generator().manual_seed(seed))
        for seed in (0, 1)
    )
    saved = {*first.state_dict()}
    pairs = zip(first.named_buffers(), second.buffers(), strict=True)
    return [(name, a, b) for (name, a), b in pairs if name not in saved and a.shape == b.shape]


def _request(subject: Subject, model: LanguageModel, path: Path) -> dict[str, Any]:
    """Saves the model, under its registered name if it has one; returns how to find its class."""
    registered = registry.is_registered(subject.cls)
    if registered:
        model.save(path / "model")
    else:
        save_file(_contiguous(model), path / "model.safetensors")
    return {
        **reference(subject.cls),
        "registered": registered,
        "config": configs.to_dict(model.config),
        "threads": torch.get_num_threads(),  # another number changes the order of sums
    }


def _contiguous(model: nn.Module) -> dict[str, Tensor]:
    """Returns the state dict with each shared tensor under its first name only."""
    first: dict[int, str] = {}
    tensors = model.state_dict()
    return {
        name: tensor.clone().contiguous()
        for name, tensor in tensors.items()
        if first.setdefault(tensor.data_ptr() or id(tensor), name) == name
    }


def tied_weights(subject: Subject) -> str:
    """Checks that tied weights stay tied after loading and casting, and that tying follows `tie_embeddings`."""
    _require_one_parameter(subject)
    model = subject.model()
    before = _shared(model)
    idx = subject.tokens(2, 5)
    copied = subject.model(seed=3)
    missing, unexpected = copied.load_state_dict(_contiguous(model), strict=False)
    lost = [name for name in missing if name not in {other for group in before for other in group}]
    if lost or unexpected:
        raise Fault(f"load_state_dict misses {lost} and does not know {list(unexpected)}")
    for what, other in (("load_state_dict", copied), ("double().float()", subject.model().double().float())):
        if _shared(other) != before:
            raise Fault(f"tied parameters are {before}, and {_shared(other)} after {what}")
    found_BTV, expected_BTV = copied(idx).logits, model(idx).logits
    if not torch.equal(found_BTV, expected_BTV):
        where = f"buffers that are not saved, tying{_unsaved(subject)}"
        require_same_bits(found_BTV, expected_BTV, "a model that has loaded another's weights", where)

    # With tie_embeddings=True the two must be one tensor: equal copies would differ after a training step.
    tied = getattr(model.config, "tie_embeddings", None)
    ignored = "tie_embeddings" in getattr(type(model.config), "without_effect", ())
    if tied is not None and not ignored and _head_uses_embedding(model, idx) is (not tied):
        raise Fault(
            f"the config says tie_embeddings={tied}, and the head's weight is {'not ' if tied else ''}the embedding's "
            "(changing the embedding changes what the head computes exactly if they are one)"
        )
    return (
        f"{len(before)} groups of shared parameters, kept through load and cast"
        if before
        else "no shared parameters, as the config says"
    )


@torch.no_grad()
def _head_uses_embedding(model: LanguageModel, idx: Tensor) -> bool | None:
    """True if other token embeddings give other logits for the same features; None if that says nothing.

    A model may have several, of which one is tied, and they may have rows for padding. Without an embedding, or with a
    head that has no parameter and does not read the embedding, nothing is known: `features` may compute the logits.
    """
    V = model.config.vocab_size
    heads = {id(p) for p in model.head.parameters()}
    tables = [m.weight for m in model.modules() if isinstance(m, nn.Embedding) and m.weight.shape[0] >= V]
    tables = tables or [p for p in model.parameters() if p.shape[:1] == (V,) and id(p) not in heads][:1]
    if not tables:
        return None
    x_BTD, _ = model.features(idx)
    before_BTV = model.head(x_BTD)
    for table in tables:
        table.add_(torch.linspace(1, 2, table.numel(), dtype=table.dtype).view_as(table))
    reads = not torch.equal(model.head(x_BTD), before_BTV)
    return reads if reads or heads else None


REFER = "a layer that uses the parameter of another must refer to it (lmzoo.layers.head.TiedHead)"


def _require_one_parameter(subject: Subject) -> None:
    """Raises `Fault` if two parameters have one memory, or if two modules own one parameter.

    The first are trained twice and copied apart. The second is drawn twice, and is two parameters as soon as
    `to_empty()` gives each module its own. A module under two names is no fault: it stays one.
    Of a new model, since in a clone each parameter has its own memory.
    """
    model = registry.build_model(subject.cls, subject.config, generator=torch.Generator().manual_seed(0))
    parameters = dict(model.named_parameters())  # each once
    for first, *others in _shared(model):
        twice = [name for name in others if name in parameters]
        if first in parameters and twice:
            raise Fault(
                f"{first} and {twice[0]} are two parameters in one memory, each with a gradient of its own; {REFER}"
            )
    owned: dict[int, str] = {}
    for where, module in model.named_modules():
        for name, parameter in module.named_parameters(where, recurse=False):
            if id(parameter) in owned:
                raise Fault(
                    f"{owned[id(parameter)]} and {name} are one parameter that two modules own: it is drawn twice, and "
                    f"to_empty(), which fills a model from the meta device, unties it; {REFER}"
                )
            owned[id(parameter)] = name


def _shared(model: nn.Module) -> list[list[str]]:
    """Returns the names of parameters that share memory, in groups."""
    groups: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        groups.setdefault(parameter.data_ptr(), []).append(name)
    return [names for names in groups.values() if len(names) > 1]


def meta_device(subject: Subject) -> str:
    """Checks that a model built on the meta device can be loaded, or be given new weights by `init_weights`.

    Also checks, without a GPU, that forward and decoding make their tensors on the device of the model.
    """
    model = subject.model()
    meta_model = registry.blank_model(subject.cls, model.config, device="meta")
    for (name, a), b in zip(model.state_dict().items(), meta_model.state_dict().values(), strict=True):
        if a.shape != b.shape or a.dtype != b.dtype or b.device.type != "meta":
            raise Fault(
                f"{name} is {tuple(b.shape)} {b.dtype} on {b.device}, and {tuple(a.shape)} {a.dtype} when built on "
                f"{a.device}"
            )
    _require_one_device(meta_model.eval(), subject)
    meta_model.to_empty(device="cpu")
    for tensor in (*meta_model.parameters(), *meta_model.buffers()):
        with torch.no_grad():
            tensor.fill_(0)  # `to_empty` leaves arbitrary values, which might be right by accident
    meta_model.load_state_dict(model.state_dict())
    idx = subject.tokens(2, min(subject.context, 9))
    found_BTV, expected_BTV = meta_model.eval()(idx).logits, model(idx).logits
    if not difference(found_BTV, expected_BTV) <= 1e-6:
        names = [name for name, *_ in _unsaved_buffers(subject)]
        raise Fault(
            "the model built on the meta device and then loaded gives other logits; look at "
            + (
                f"the buffer {names[0]}, which is not saved (persistent=False): nothing fills it there. Save it, or "
                "compute it in forward()"
                if names
                else "tensors that are neither parameters nor buffers, attributes set after __init__"
            )
        )
    tied = _shared(model)
    if tied and _shared(meta_model) != tied:
        raise Fault(
            f"to_empty(), which fills a model from the meta device, unties {' and '.join(tied[0])}: {REFER}, not hold "
            "it under a second name"
        )
    meta_model.init_weights(torch.Generator().manual_seed(0))
    drawn = subject.model(perturbed=False)
    drawn.init_weights(torch.Generator().manual_seed(0))
    for (where, a), b in zip(drawn.named_modules(), meta_model.modules(), strict=True):
        if hasattr(a, "init_parameters"):  # torch's own modules have none
            for (name, value), again in zip(
                a.named_parameters(recurse=False), b.parameters(recurse=False), strict=True
            ):
                what = f"{where}.{name}, drawn after meta and to_empty(),"
                require_same_bits(again, value, what, "constructors that fill a parameter")
    return "built on the meta device, then loaded or drawn: the same; no tensor on another device"


_OTHER_DEVICE = ("expected device", "same device", "state is on")  # in torch's messages, and in the model's


def _require_one_device(model: LanguageModel, subject: Subject) -> None:
    """Raises `Fault` if a model on the meta device mixes in a tensor that is on the CPU.

    Other errors are no fault: what depends on the values of tensors cannot run on the meta device.
    """
    idx = subject.tokens(2, min(subject.context, 9)).to("meta")
    try:
        model(idx)
        _, state = model.decode(idx, model.init_state(2, 9))
        model.decode(idx[:, :1], state)
    except Exception as error:
        if any(part in str(error) for part in _OTHER_DEVICE):
            frames = [f for f in traceback.extract_tb(error.__traceback__) if "site-packages" not in f.filename]
            where = f"{frames[-1].filename.rsplit('/', 1)[-1]}:{frames[-1].lineno}"
            raise Fault(
                f"on another device than the CPU: {str(error).splitlines()[0]} at {where}; look at tensors made "
                "without device= (of idx, x, or `like` in init_state)"
            ) from error
