"""Straight-through gradients (Bengio et al. 2013, arXiv 1308.3432): a value with the gradient of another value.

For functions whose own gradient is zero almost everywhere, such as rounding weights to three values. A finite
difference cannot confirm such a gradient, so the checks compare gradients where the value is the surrogate, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor


def straight_through(value: Tensor, surrogate: Tensor) -> Tensor:
    """Returns `value`, bit for bit, with the gradient of `surrogate`, a tensor of the same shape."""
    if not torch.compiler.is_compiling() and _is_smooth.get():
        return surrogate
    return value.detach() + (surrogate - surrogate.detach())


@contextmanager
def smooth() -> Iterator[None]:
    """Lets `straight_through` return the surrogate within the block, so that finite differences fit the gradient."""
    token = _is_smooth.set(True)
    try:
        yield
    finally:
        _is_smooth.reset(token)


_is_smooth = ContextVar("_is_smooth", default=False)
