"""Activation checkpointing (Chen et al. 2016, arXiv 1604.06174): recomputes activations in the backward pass.

Only the input of each block is kept, so that memory does not grow with the activations inside the blocks. The cost is
one more forward pass. It works on every model whose blocks are in a `Stack`, and changes no parameter name.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from torch import nn

from lmzoo.layers.stack import outermost_stacks


@contextmanager
def activation_checkpointing(model: nn.Module, enabled: bool) -> Generator[None]:
    """Keep only the input of each block of `model` for the backward pass, within the context and if `enabled`.

    Loss and gradients stay bitwise the same: recomputed dropout draws the same numbers again.
    """
    stacks = outermost_stacks(model) if enabled else []
    for stack in stacks:
        stack.checkpoints = True
    try:
        yield
    finally:
        for stack in stacks:
            stack.checkpoints = False
