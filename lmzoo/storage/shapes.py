"""Compares the tensors of two models by name and shape: whether one can take over the weights of the other."""

from __future__ import annotations

from torch import nn

from lmzoo.storage.models import tensors_of


def difference(given: nn.Module, wanted: nn.Module) -> str:
    """Returns the first difference in names or shapes of parameters and saved buffers, in words; "" if none."""
    have, need = tensors_of(given), tensors_of(wanted)
    for name in [*need, *have]:
        if name not in have:
            return f"it adds {name}"
        if name not in need:
            return f"it removes {name}"
        if have[name].shape != need[name].shape:
            return f"it changes the shape of {name} from {tuple(have[name].shape)} to {tuple(need[name].shape)}"
    return ""
