"""Dropout (Srivastava et al. 2014): one dispatcher over torch's kernel and a faster CPU kernel."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lmzoo.ops.cpu.dropout import dropout_noise


def dropout(x: Tensor, p: float) -> Tensor:
    """Returns `F.dropout(x, p)`, with p accurate to 2**-17. Draws from torch's global random state."""
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return F.dropout(x, p)
    return x * dropout_noise(x, p)
