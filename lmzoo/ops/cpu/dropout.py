"""Dropout mask (Srivastava et al. 2014) on the CPU, drawn 64 bits at a time.

torch draws one double per value on the CPU, which was a quarter of a training step of gpt2.10m (docs/log.md).
"""

from __future__ import annotations

import torch
from torch import Tensor

STEPS = 1 << 16  # resolution of the probability: 16 random bits per value


def dropout_noise(like: Tensor, p: float) -> Tensor:
    """Returns independent values with the shape and dtype of `like`: 0 with probability p, else 1 / (1 - p)."""
    values = like.numel()
    words = torch.empty(-(-values // 4), dtype=torch.int64).random_(-(1 << 63), None)
    kept = min(max(round((1 - p) * STEPS), 1), STEPS - 1)
    is_kept = words.view(torch.int16)[:values] < kept - STEPS // 2
    return is_kept.view(like.shape).to(like.dtype).mul_(1 / (1 - p))
