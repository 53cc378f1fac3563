"""State dicts of models: shared tensors under one name, and the buffers that they lack."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lmzoo import registry
from lmzoo.conformance.tiny import Subject


def each_once(model: nn.Module) -> dict[str, Tensor]:
    """Returns contiguous copies of the tensors of the state dict, each shared tensor under its first name only."""
    first: dict[int, str] = {}
    tensors = model.state_dict()
    return {
        name: tensor.clone().contiguous()
        for name, tensor in tensors.items()
        if first.setdefault(tensor.data_ptr() or id(tensor), name) == name
    }


def unsaved_hint(subject: Subject) -> str:
    """Returns the end of a message that names a buffer that is drawn at random and not saved; '' if there is none."""
    names = [name for name, a, b in unsaved_buffers(subject) if not torch.equal(a, b)]
    drawn = "is not saved (persistent=False) and is drawn at random"
    return f"; the buffer {names[0]} {drawn}: save it, or make it a parameter of the role 'constant'" if names else ""


def unsaved_buffers(subject: Subject) -> list[tuple[str, Tensor, Tensor]]:
    """Returns each buffer that is not saved, as its name and its values in two models of different seeds."""
    first, second = (
        registry.build_model(subject.cls, subject.config, generator=torch.Generator().manual_seed(seed))
        for seed in (0, 1)
    )
    saved = {*first.state_dict()}
    pairs = zip(first.named_buffers(), second.buffers(), strict=True)
    return [(name, a, b) for (name, a), b in pairs if name not in saved and a.shape == b.shape]
