"""The processes of one run, as torchrun starts them: who this one is, and the few things they do together.

Everything else in this room is written for one process and is handed a `Ranks`; alone, each of its methods does
nothing. Legend: B rows of the global batch.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from lmzoo.errors import ConfigError, LmzooError, LostProcessError

LAUNCHED = "LMZOO_LAUNCHED"  # set in the processes that `launch` starts: it tells who was killed, and tells it once
TIMEOUT = timedelta(minutes=60)  # the others wait while the first builds a tokenizer and tokenises a large corpus
_TOLD = "lmzoo/told"
_TOLD_SECONDS = 2.0  # a process that failed closes its connections a moment before it has said why
# What gloo, NCCL and torch's store say, in lower case, when one at the other end is no longer there.
_LOST = ("connection closed by peer", "connection reset by peer", "broken pipe", "connection refused", "gloo/", "nccl")


@dataclass(frozen=True)
class Ranks:
    """Which of the `world_size` processes of a run this one is, the device it computes on, and who started it."""

    rank: int = 0
    world_size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    launcher: int = field(default_factory=os.getppid)  # the process that was there when all were connected

    @property
    def orphaned(self) -> bool:
        """Whether the launcher of several processes is gone."""
        return self.world_size > 1 and os.getppid() != self.launcher

    @property
    def leads(self) -> bool:
        """Whether this is the one that writes and tells."""
        return self.rank == 0

    def rows(self, batch_BT: Tensor) -> Tensor:
        """This process's rows of a global batch, whose number is a multiple of `world_size`."""
        share = batch_BT.shape[0] // self.world_size
        return batch_BT[self.rank * share : (self.rank + 1) * share]

    def add_up(self, tensor: Tensor) -> Tensor:
        """The sum of what every process has."""
        if self.world_size > 1:
            tensor = tensor.to(self.device, copy=True)
            dist.all_reduce(tensor)
        return tensor

    def most(self, number: int) -> int:
        """The largest number that any process has."""
        if self.world_size == 1:
            return number
        found = torch.tensor(number, device=self.device)
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return int(found)

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """What every process has, in the order of their ranks, on the CPU; of one shape everywhere."""
        if self.world_size == 1:
            return [tensor]
        all_of_them = [torch.empty_like(tensor, device=self.device) for _ in range(self.world_size)]
        dist.all_gather(all_of_them, tensor.to(self.device))
        return [other.cpu() for other in all_of_them]

    def wait(self) -> None:
        """Go on when all are here."""
        self.most(0)

    def require_rows(self, batch_size: int) -> None:
        """Raise `ConfigError` unless every process gets as many rows of a batch as the others."""
        if batch_size % self.world_size:
            raise ConfigError(
                f"batch_size={batch_size} must be divisible by the number of processes, world_size={self.world_size}: "
                f"it is that of all of them together"
            )


ALONE = Ranks()


@contextmanager
def process_group() -> Generator[Ranks]:
    """The processes that torchrun's environment names, connected (gloo on CPUs, NCCL on GPUs); alone without it.

    A group that is there already is used, and left. Raises `LostProcessError` in the place of what torch raises when
    another process is gone.
    """
    if dist.is_available() and dist.is_initialized():
        yield Ranks(dist.get_rank(), dist.get_world_size(), _device())
        return
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Ranks(device=_device())
        return
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
            "another process of the run is gone, and this one stops too: go on with the same command and --resume"
        ) from error
    finally:
        gc.collect()  # what still refers to the group would take it down at the interpreter's end, and abort there
        if dist.is_initialized():
            dist.destroy_process_group()


@contextmanager
def told_once() -> Generator[None]:
    """Of the errors that end all processes of a run, let one through; the others leave with its exit code, in silence.

    To be used outside of `process_group`, where the command line tells errors. Tracebacks of bugs are all let through.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    try:
        yield
    except LmzooError as error:
        if not _is_mine_to_tell(error):
            raise SystemExit(2) from error
        raise
    except KeyboardInterrupt as error:
        if os.environ.get("RANK") != "0":
            raise SystemExit(130) from error
        raise


def _is_mine_to_tell(error: LmzooError) -> bool:
    """Whether no other process told, or will tell in a moment, why the run ends."""
    with suppress(dist.DistError):  # the launcher is gone: whoever is left tells
        store = dist.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), timeout=timedelta(seconds=5))
        if isinstance(error, LostProcessError):
            time.sleep(_TOLD_SECONDS)
            if LAUNCHED in os.environ:
                return False
        return store.add(f"{_TOLD}/{os.environ.get('TORCHELASTIC_RUN_ID', '')}", 1) == 1
    return True


def _device() -> torch.device:
    """The GPU of this process on its machine, or the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if local >= torch.cuda.device_count():
        raise ConfigError(f"nproc={local + 1} asks for more processes than the {torch.cuda.device_count()} GPUs here")
    return torch.device("cuda", local) if "LOCAL_RANK" in os.environ else torch.device("cuda")
