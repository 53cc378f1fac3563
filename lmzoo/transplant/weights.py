"""Moves weights into a model with new mixers: what is kept, and what the new mixers take over."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lmzoo.errors import ConfigError
from lmzoo.layers.layer import Layer
from lmzoo.layers.projections import Projection, transfer
from lmzoo.layers.short_conv import ShortConv
from lmzoo.model import LanguageModel
from lmzoo.storage.models import tensors_of


def copy_kept(source: LanguageModel, model: LanguageModel, mixers: Sequence[Layer]) -> int:
    """Copies all tensors outside the new `mixers`, with their dtypes; returns the number of kept parameters.

    Raises `ConfigError` if the source lacks one of them.
    """
    new = {id(tensor) for mixer in mixers for tensor in tensors_of(mixer).values()}
    given = {**dict(source.named_parameters(remove_duplicate=False)), **dict(source.named_buffers())}
    kept = 0
    for name, tensor in tensors_of(model).items():
        if id(tensor) in new:
            continue
        if name not in given or given[name].shape != tensor.shape:
            raise ConfigError(f"{name} is not replaced, but the source has no tensor of this name and shape")
        tensor.data = given[name].detach().clone()
        kept += tensor.numel() * isinstance(tensor, nn.Parameter)
    return kept


def move(old: Layer, new: Layer, dtype: torch.dtype, *, copies: bool) -> tuple[tuple[str, ...], tuple[str, ...], int]:
    """Lets the mixer `new` take over what fits of `old`, if it `copies`; gives it `dtype`, except what stays float32.

    Returns the names of what was taken over, the names of what is lost, and the number of parameters taken over.
    """
    given, wanted = (getattr(mixer, "transferable", dict[str, Projection])() for mixer in (old, new))
    taken = transfer(given, wanted) if copies else []
    conv = getattr(new, "conv", None)
    if taken and isinstance(conv, ShortConv):
        pass_on(conv)
    size = sum(_size(wanted[name]) for name in taken)
    mine = dict(old.named_parameters())
    in_projections = {_place(part) for each in given.values() for part in (each.weight, each.bias) if part is not None}
    others = {name for name, tensor in mine.items() if _place(tensor) not in in_projections}
    if copies and (isinstance(new, type(old)) or isinstance(old, type(new))):
        for name, tensor in new.named_parameters():
            if name in others and mine[name].shape == tensor.shape and _owner(old, name) is _owner(new, name):
                tensor.data.copy_(mine[name])
                taken.append(name)
                size += tensor.numel()
    biases = [
        f"bias of {name}"
        for name, each in given.items()
        if name in taken and each.bias is not None and wanted[name].bias is None
    ]
    lost = [*(name for name in [*given, *sorted(others)] if name not in taken), *biases]
    _cast(new, dtype)
    return tuple(taken), tuple(lost), size


@torch.no_grad()
def pass_on(conv: ShortConv) -> None:
    """Sets the filters of a short convolution so that each token gets its own projections alone."""
    conv.weight.zero_()
    conv.weight[:, -1] = 1.0
    if conv.bias is not None:
        conv.bias.zero_()


def _owner(mixer: Layer, name: str) -> type[nn.Module]:
    """Returns the class of the module that holds a parameter."""
    return type(mixer.get_submodule(name.rpartition(".")[0]))


def _size(projection: Projection) -> int:
    return projection.weight.numel() + (0 if projection.bias is None else projection.bias.numel())


def _place(tensor: Tensor) -> int:
    """Returns the address of the memory that a tensor is a view of."""
    return tensor.untyped_storage().data_ptr()


def _cast(mixer: Layer, dtype: torch.dtype) -> None:
    for module in mixer.modules():
        wide = getattr(module, "keep_float32", ())
        for name, parameter in module.named_parameters(recurse=False):
            if name not in wide:
                parameter.data = parameter.data.to(dtype)
