"""GELU in its tanh form (Hendrycks & Gimpel 2016, arXiv 1606.08415): torch's kernel or a faster one on CPUs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lmzoo.ops.cpu import gelu as cpu


def gelu_tanh(x: Tensor) -> Tensor:
    """Returns `F.gelu(x, approximate="tanh")`, for x of any shape."""
    if x.device.type != "cpu":
        return F.gelu(x, approximate="tanh")
    if torch.compiler.is_compiling():
        return cpu.gelu_by_sigmoid(x)
    return cpu.gelu_with_derivative(x) if x.requires_grad and torch.is_grad_enabled() else F.gelu(x, approximate="tanh")
