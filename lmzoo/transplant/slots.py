"""The place of the mixer in each block of a model: where it is read from, and where another one is put."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from lmzoo.errors import ConfigError
from lmzoo.layers import stack
from lmzoo.layers.engram import Engram
from lmzoo.layers.hyper_connection import Streams
from lmzoo.layers.layer import Layer
from lmzoo.layers.rwkv7 import ChannelMix
from lmzoo.layers.stack import Parallel, Residual, Stack

_NO_MIXERS = (ChannelMix, Engram)  # layers with a state that are not the mixer of their block


@dataclass(frozen=True)
class Slot:
    """The attribute `name` of `parent`, which holds the mixer of a block."""

    parent: nn.Module
    name: str

    @property
    def mixer(self) -> Layer:
        """Returns the mixer."""
        mixer: Layer = getattr(self.parent, self.name)
        return mixer

    def put(self, mixer: Layer) -> None:
        """Replaces the mixer."""
        setattr(self.parent, self.name, mixer)
        if isinstance(self.parent, Streams):
            self.parent.reach = stack.reach(mixer)


def slot_of(block: nn.Module) -> Slot:
    """Returns the slot of the first mixer of a block. Raises `ConfigError` for a block that has none, or two beside."""
    found = list(_slots(block))
    if not found:
        raise ConfigError("has no mixer in a residual branch")
    beside = [slot for slot in found if any(slot.parent in [*p] for p in block.modules() if isinstance(p, Parallel))]
    if len(beside) > 1:
        raise ConfigError("has several mixers side by side")
    return found[0]


def slots_of(model: nn.Module) -> list[Slot | ConfigError]:
    """Returns the slot of each block of a model, or the error of a block without one; none for a model of no blocks."""
    found: list[Slot | ConfigError] = []
    for block in stack.blocks_of(model):
        try:
            found.append(slot_of(block))
        except ConfigError as error:
            found.append(error)
    return found


def _slots(module: nn.Module) -> Iterator[Slot]:
    """Yields the layers with a state that are inside a module, but in no other layer, and not directly in a stack.

    In a residual branch, any module with a state is such a layer; elsewhere, as in gpt2's blocks, a `Layer`.
    """
    for name, child in module.named_children():
        in_branch = isinstance(module, (Residual, Streams))
        if isinstance(child, (Stack, Residual, Parallel, Streams)) or not (in_branch or isinstance(child, Layer)):
            yield from _slots(child)
        elif hasattr(child, "init_state") and not isinstance(child, _NO_MIXERS) and not isinstance(module, Stack):
            yield Slot(module, name)
