"""The ranks of one run, as torchrun starts them, and their collectives.

The rest of the package is single-process code that takes a `Ranks`; with one process every collective is a no-op.
Legend: B rows of the global batch, T time.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from lmzoo.errors import ConfigError, LostProcessError
from lmzoo.hardware import default_device

TIMEOUT = timedelta(minutes=60)  # the other ranks wait while rank 0 trains a tokenizer and tokenizes a large corpus
# Parts of the messages of gloo, NCCL and torch's store, in lower case, when the peer is gone.
_LOST = ("connection closed by peer", "connection reset by peer", "broken pipe", "connection refused", "gloo/", "nccl")


@dataclass(frozen=True)
class Ranks:
    """The rank of this process among `world_size`, its device, and the process that started it."""

    rank: int = 0
    world_size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    launcher: int = field(default_factory=os.getppid)  # the parent when all ranks were connected

    @property
    def orphaned(self) -> bool:
        """True if the launcher of several ranks is gone."""
        return self.world_size > 1 and os.getppid() != self.launcher

    @property
    def is_main(self) -> bool:
        """True on rank 0, the only rank that writes files and logs."""
        return self.rank == 0

    def rows(self, batch_BT: Tensor) -> Tensor:
        """The rows of a global batch that belong to this rank; B must be a multiple of `world_size`."""
        share = batch_BT.shape[0] // self.world_size
        return batch_BT[self.rank * share : (self.rank + 1) * share]

    def all_reduce_sum(self, tensor: Tensor) -> Tensor:
        """All-reduce with a sum; the argument is not changed."""
        if self.world_size > 1:
            tensor = tensor.to(self.device, copy=True)
            dist.all_reduce(tensor)
        return tensor

    def all_reduce_max(self, number: int) -> int:
        """All-reduce of an integer with the maximum."""
        if self.world_size == 1:
            return number
        found = torch.tensor(number, device=self.device)
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return int(found)

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """All-gather: the tensors of all ranks in rank order, on the CPU. All must have one shape."""
        if self.world_size == 1:
            return [tensor]
        gathered = [torch.empty_like(tensor, device=self.device) for _ in range(self.world_size)]
        dist.all_gather(gathered, tensor.to(self.device))
        return [other.cpu() for other in gathered]

    def barrier(self) -> None:
        """Barrier: returns when all ranks have called it."""
        self.all_reduce_max(0)

    def require_rows(self, batch_size: int) -> None:
        """Raise `ConfigError` unless all ranks get the same number of rows of a batch."""
        if batch_size % self.world_size:
            raise ConfigError(
                f"batch_size={batch_size} must be divisible by the number of processes, world_size={self.world_size}: "
                f"it is the number of rows of all processes together"
            )


ALONE = Ranks()


@contextmanager
def process_group() -> Generator[Ranks]:
    """Connect the ranks that torchrun's environment names (gloo on CPUs, NCCL on GPUs); one rank without it.

    An existing process group is used and not destroyed. Errors of torch that mean that another rank is gone are raised
    as `LostProcessError`.
    """
    if dist.is_available() and dist.is_initialized():
        yield Ranks(dist.get_rank(), dist.get_world_size(), _device())
        return
    if _number("WORLD_SIZE", 1) == 1:
        yield Ranks(device=_device())
        return
    rank, world_size = _number("RANK", 0), _number("WORLD_SIZE", 1)
    if not 0 <= rank < world_size:
        raise ConfigError(f"RANK={rank} must be in [0, WORLD_SIZE={world_size})")
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        if name not in os.environ:
            raise ConfigError(f"WORLD_SIZE={world_size} needs {name}: start the processes with --nproc or torchrun")
    _number("MASTER_PORT", 0)
    device = _device()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)
        yield Ranks(dist.get_rank(), dist.get_world_size(), device)
    except RuntimeError as error:
        if not any(words in str(error).lower() for words in _LOST) and not isinstance(error, dist.DistError):
            raise
        raise LostProcessError(
            "another process of the run is gone, and this one stops too: continue with the same command and --resume"
        ) from error
    finally:
        gc.collect()  # objects that still refer to the group would destroy it at interpreter exit, which aborts
        if dist.is_initialized():
            dist.destroy_process_group()


def refuse_ranks(why: str) -> None:
    """Raise `ConfigError` under a launcher of several ranks, for a command that each of them would run as a whole."""
    world_size = _number("WORLD_SIZE", 1)
    if world_size > 1:
        raise ConfigError(f"WORLD_SIZE={world_size}: start the command without torchrun: {why}")


def _number(name: str, default: int) -> int:
    """The number in an environment variable of the launcher. Raises `ConfigError` for another text."""
    text = os.environ.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise ConfigError(f"{name}={text!r} in the environment must be a number, as the launcher sets it")
    return int(text)


def _device() -> torch.device:
    """The GPU of this rank on its machine, or the CPU."""
    device = default_device()
    if device.type == "cpu":
        return device
    local = _number("LOCAL_RANK", 0)
    if local >= torch.cuda.device_count():
        raise ConfigError(f"nproc={local + 1} asks for more processes than the {torch.cuda.device_count()} GPUs here")
    return torch.device("cuda", local) if "LOCAL_RANK" in os.environ else torch.device("cuda")
