"""A model on several processes: copies whose gradients are averaged (DDP), or shards gathered to be used (FSDP).

Both are torch's own. What is a unit of sharding is told from the structure alone: each module in a list of modules.
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


def parallelise(model: LanguageModel, parallel: Parallel, ranks: Ranks) -> nn.Module:
    """What to call in training in the place of `model`, which all ranks made alike; to be done before the optimizer.

    "ddp" gives a wrapper. "fsdp" gives the model itself, its parameters replaced by shards (`DTensor`). One process
    needs neither. The gradients are the mean over the ranks of what each makes.
    """
    if ranks.world_size == 1:
        return model
    return _ddp(model, ranks) if parallel == "ddp" else _fsdp(model, ranks)


def gradients_wait(forward: Callable[..., Any], *, for_more: bool) -> AbstractContextManager[None]:
    """Within the block, DDP adds up gradients on this process alone; FSDP would need memory for whole ones."""
    no_sync: Any = getattr(forward, "no_sync", None)
    return no_sync() if for_more and no_sync is not None else nullcontext()


def whole(tensor: Tensor) -> Tensor:
    """The tensor that is sharded, from all of its ranks, which must ask alike; any other as it is."""
    full: Any = getattr(tensor, "full_tensor", None)
    return full() if full is not None else tensor


def local(tensor: Tensor) -> Tensor:
    """This process's part of a tensor that is sharded; any other as it is."""
    part: Any = getattr(tensor, "to_local", None)
    return part() if part is not None else tensor


def like(tensor: Tensor, values: Tensor) -> Tensor:
    """`values` in new memory, on the device of `tensor` and sharded as it is where the shapes are the same."""
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
    """Memory for values of `shape`, on the device of `tensor` and sharded as it is where the shapes are the same."""
    if shape == tuple(tensor.shape):
        return torch.empty_like(tensor, dtype=dtype, requires_grad=False)
    return torch.empty(shape, dtype=dtype, device=tensor.device)


def _ddp(model: LanguageModel, ranks: Ranks) -> nn.Module:
    from torch.nn.parallel import DistributedDataParallel

    # Looking for unused parameters serves twice: an expert that no row chose has no gradient, as in one process; and
    # the buckets stay as they are. Else they would be made anew after the first step, and three or more ranks that
    # resume would add up in another order.
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
    if pad is not None:  # from torch 2.13 on, a parameter that some ranks did not use counts as zero there
        pad(True)
    return model


def _units(model: nn.Module) -> Iterator[nn.Module]:
    """The blocks, but for those that share a parameter with something outside, or have none."""
    owners: dict[int, int] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            owners[id(parameter)] = owners.get(id(parameter), 0) + 1
    for unit in dict.fromkeys(blocks_of(model)):
        used = [p for child in unit.modules() for p in child.parameters(recurse=False)]
        if used and all(owners[id(p)] == sum(q is p for q in used) for p in used):
            yield unit
