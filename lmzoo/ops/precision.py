"""The dtype of values that must not be rounded to bfloat16: states, decays, statistics."""

from __future__ import annotations

import torch
from torch import Tensor


def wide_dtype(dtype: torch.dtype | None) -> torch.dtype:
    """Returns float32, or `dtype` if that is wider (float64, complex); None means torch's default dtype."""
    return torch.promote_types(torch.get_default_dtype() if dtype is None else dtype, torch.float32)


def wide(x: Tensor) -> Tensor:
    """Returns `x` in `wide_dtype(x.dtype)`; `x` itself if it already has that dtype."""
    return x.to(wide_dtype(x.dtype))
