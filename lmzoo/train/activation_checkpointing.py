"""Gradient checkpointing (Chen et al. 2016, arXiv 1604.06174): a block's activations are computed again when needed.

Of each block only the input is kept for the backward pass, so memory grows with the width of the stream between the
blocks instead of with all that is inside them, for one more forward pass. It works on every model that keeps its blocks
in a list, whatever they are, and changes no weight's name.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from lmzoo.layers.stack import blocks_of


@contextmanager
def recomputing(model: nn.Module, enabled: bool) -> Generator[None]:
    """Within the block, and if `enabled`, each block of `model` keeps its input alone for the backward pass.

    Loss and gradients are the same bits: dropout draws the same numbers again.
    """
    blocks = blocks_of(model) if enabled else []
    for block in blocks:
        vars(block)["forward"] = _recomputed(block.forward)
    try:
        yield
    finally:
        for block in blocks:
            del vars(block)["forward"]


def _recomputed(forward: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)

    return call
