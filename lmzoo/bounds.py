"""Bounds: what a number from an argument or a file would take of this machine, checked before it is taken."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)

from lmzoo import configs, files, humanize
from lmzoo.errors import ConfigError, InputError

MAX_TENSORS = 10_000  # of one model; the largest published models have a few thousand
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
# Parts of the messages, in lower case, with which torch refuses a size.
_SIZE_WORDS = ("storage size calculation overflowed", "allocate memory", "not enough memory", "invalid shape", "numel")


def machine_memory(device: torch.device | None = None) -> int:
    """Returns the bytes of memory of a device, or of the machine that this process may use."""
    if device is not None and device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(total, int(files.read_bytes(_CGROUP_LIMIT, 100)))
    except (OSError, ValueError):  # no limit: "max", or no such file
        return total


def require_memory(what: str, needed: int, device: torch.device | None = None) -> None:
    """Raise `InputError` if `what` needs more bytes than the machine has."""
    if device is not None and device.type == "meta":
        return
    there = machine_memory(device)
    if needed > there:
        raise InputError(f"{what} needs {humanize.size(needed)} of memory, and this machine has {humanize.size(there)}")


@contextmanager
def building(config: Any) -> Generator[None]:
    """Within the block, a constructor that asks for too many or too large tensors is stopped by a `ConfigError`."""
    count = total = 0
    there = machine_memory()

    def add(_module: nn.Module, _name: str, tensor: Any) -> None:
        nonlocal count, total
        count += 1
        if isinstance(tensor, torch.Tensor) and tensor.device.type != "meta":
            total += tensor.nbytes
        if count > MAX_TENSORS:
            raise ConfigError(f"{_large(config)} asks for more than {MAX_TENSORS:,} tensors")
        if total > there:
            raise ConfigError(
                f"{_large(config)} asks for more than the {humanize.size(there)} of memory that this machine has"
            )

    hooks = [register_module_parameter_registration_hook(add), register_module_buffer_registration_hook(add)]
    try:
        yield
    except (RuntimeError, MemoryError, OverflowError) as error:
        if isinstance(error, RuntimeError) and not any(words in str(error).lower() for words in _SIZE_WORDS):
            raise
        raise ConfigError(f"{_large(config)} asks for a tensor that is too large for this machine") from error
    finally:
        for hook in hooks:
            hook.remove()


def _large(config: Any) -> str:
    """Names the two largest integers of a config, which ask for the memory."""
    sizes = {name: value for name, value in configs.to_dict(config).items() if type(value) is int}
    largest = sorted(sizes, key=lambda name: sizes[name], reverse=True)[:2]
    return " with ".join(f"{name}={sizes[name]}" for name in largest) or type(config).__name__
