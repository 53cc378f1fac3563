"""Data parallelism by torch: copies of the model with averaged gradients (DDP), or shards gathered for use (FSDP).

The units of FSDP follow from the structure of the model: each block is one unit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from lmzoo.distributed import Parallel
from lmzoo.distributed.ranks import Ranks
from lmzoo.layers.stack import blocks_of
from lmzoo.model import LanguageModel


def parallelize(model: LanguageModel, parallel: Parallel, ranks: Ranks) -> nn.Module:
    """Wrap `model` in DDP or shard it with FSDP; call the result in training steps.

    All ranks must hold identical weights. The optimizer must be made afterwards: "fsdp" returns the model itself with
    its parameters replaced by shards (`DTensor`). With one process, or without parameters, the model is returned
    unchanged. Gradients are averaged over the ranks.
    """
    if ranks.world_size == 1 or not model.traits.trainable:
        return model
    return _ddp(model, ranks) if parallel == "ddp" else _fsdp(model, ranks)


def no_sync(forward: Callable[..., Any], *, enabled: bool) -> AbstractContextManager[None]:
    """Skip DDP's gradient all-reduce within the block if `enabled`; FSDP would need unsharded gradients for this."""
    of_ddp: Any = getattr(forward, "no_sync", None)
    return of_ddp() if enabled and of_ddp is not None else nullcontext()


def full_tensor(tensor: Tensor) -> Tensor:
    """Return the full tensor of a sharded one, a collective operation; any other tensor unchanged."""
    full: Any = getattr(tensor, "full_tensor", None)
    return full() if full is not None else tensor


def local_tensor(tensor: Tensor) -> Tensor:
    """Return this rank's shard of a sharded tensor; any other tensor unchanged."""
    part: Any = getattr(tensor, "to_local", None)
    return part() if part is not None else tensor


def like(tensor: Tensor, values: Tensor) -> Tensor:
    """Copy `values` to the device of `tensor`, and shard them like `tensor` if the shapes are the same."""
    mesh: Any = getattr(tensor, "device_mesh", None)
    if hasattr(values, "device_mesh"):
        return values
    values = torch.empty_like(values, device=tensor.device).copy_(values)
    if mesh is None or values.shape != tensor.shape:
        return values
    from torch.distributed.tensor import distribute_tensor

    placements: Any = getattr(tensor, "placements", None)
    return distribute_tensor(values, mesh, placements, src_data_rank=None)


def like_shaped(tensor: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Return an empty tensor on the device of `tensor`, sharded like `tensor` if the shapes are the same."""
    if shape == tuple(tensor.shape):
        return torch.empty_like(tensor, dtype=dtype, requires_grad=False)
    return torch.empty(shape, dtype=dtype, device=tensor.device)


def _ddp(model: LanguageModel, ranks: Ranks) -> nn.Module:
    from torch.nn.parallel import DistributedDataParallel

    # find_unused_parameters has two effects: an expert that no token chose gets no gradient, as in one process; and DDP
    # does not rebuild its buckets after the first step, after which three or more ranks would sum gradients in another
    # order than a resumed run does.
    devices = [ranks.device] if ranks.device.type == "cuda" else None
    return DistributedDataParallel(model, device_ids=devices, find_unused_parameters=True)


def _fsdp(model: LanguageModel, ranks: Ranks) -> nn.Module:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(ranks.device.type, (ranks.world_size,))
    for unit in _units(model):
        fully_shard(unit, mesh=mesh)
    sharded: Any = fully_shard(model, mesh=mesh)
    pad = getattr(sharded, "set_reduce_scatter_unused_params", None)
    if pad is not None:  # from torch 2.13 on: the gradient of a parameter is zero on ranks that did not use it
        pad(True)
    return model


def _units(model: nn.Module) -> Iterator[nn.Module]:
    """Yield the blocks of the model, except those without parameters and those that share one with another module."""
    owners: dict[int, int] = {}
    for _, module in model.named_modules(remove_duplicate=False):  # a module in two blocks counts twice
        for parameter in module.parameters(recurse=False):
            owners[id(parameter)] = owners.get(id(parameter), 0) + 1
    for unit in dict.fromkeys(blocks_of(model)):
        used = [p for child in unit.modules() for p in child.parameters(recurse=False)]
        if used and all(owners[id(p)] == sum(q is p for q in used) for p in used):
            yield unit
