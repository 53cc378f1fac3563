"""The dtype of values that must not be rounded to bfloat16: states, decays, statistics."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def wide_dtype(dtype: torch.dtype | None) -> torch.dtype:
    """Returns float32, or `dtype` if that is wider (float64, complex); None means torch's default dtype."""
    return torch.promote_types(torch.get_default_dtype() if dtype is None else dtype, torch.float32)


def wide(x: Tensor) -> Tensor:
    """Returns `x` in `wide_dtype(x.dtype)`; `x` itself if it already has that dtype."""
    return x.to(wide_dtype(x.dtype))


def without_autocast(x: Tensor) -> AbstractContextManager[object]:
    """Returns a context for the device of `x` in which autocast, which would round what products read, is off."""
    return nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)  # unknown to the meta device
