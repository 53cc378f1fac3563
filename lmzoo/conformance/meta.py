"""Checks of the meta device, on which a model is built without memory for its weights, as for FSDP."""

from __future__ import annotations

import torch

from lmzoo import registry
from lmzoo.conformance.measure import difference, require_same_bits
from lmzoo.conformance.report import Fault, described, raised_at
from lmzoo.conformance.state_dicts import unsaved_buffers
from lmzoo.conformance.tiny import Subject
from lmzoo.conformance.tying import REFER, shared
from lmzoo.model import LanguageModel

# Parts of the messages about tensors on two devices: of torch, and of LanguageModel.decode.
OTHER_DEVICE = ("expected device", "same device", "state is on")


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
                f"{a.device}; look at the constructor: tensors that it makes on a device of its own, and what it "
                "decides by the device"
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
        names = [name for name, *_ in unsaved_buffers(subject)]
        raise Fault(
            "the model built on the meta device and then loaded gives other logits; look at "
            + (
                f"the buffer {names[0]}, which is not saved (persistent=False): nothing fills it there. Save it, or "
                "compute it in forward()"
                if names
                else "tensors that are neither parameters nor buffers, attributes set after __init__"
            )
        )
    tied = shared(model)
    if tied and shared(meta_model) != tied:
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
        if any(part in str(error) for part in OTHER_DEVICE):
            raise Fault(
                f"on another device than the CPU, {described(error)}{raised_at(error)}; look at tensors made without "
                "device= (of idx, x, or `like` in init_state)"
            ) from error
