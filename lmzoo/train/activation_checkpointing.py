"""Activation checkpointing (Chen et al. 2016, arXiv 1604.06174): activations are computed again in the backward pass.

Of each block only the input is kept, so memory grows with the width of the residual stream and not
with everything inside the blocks, at the cost of one more forward pass. It works on every model whose blocks are in a
`Stack`, and changes no parameter name.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from torch import nn

from lmzoo.layers.stack import outermost_stacks


@contextmanager
def activation_checkpointing(model: nn.Module, enabled: bool) -> Generator[None]:
    """Inside the context, and if `enabled`, each block of `model` keeps only its input for the backward pass.

    Loss and gradients are bitwise the same: dropout draws the same numbers again.
    """
    stacks = outermost_stacks(model) if enabled else []
    for stack in stacks:
        stack.checkpoints = True
    try:
        yield
    finally:
        for stack in stacks:
            stack.checkpoints = False
