"""Says whether the tests that need a GPU and the kernels of flash-linear-attention can run here."""

from __future__ import annotations

import torch

from lmzoo.ops.kernels import kernels_used

REQUIRED = "LMZOO_GPU"  # environment variable: set if the tests must run
MISSING = "no GPU with fla-core: pip install 'lmzoo[gpu]' on a machine with one"


def is_here() -> bool:
    """Return True if there is a GPU, and the kernels can be used on it."""
    return torch.cuda.is_available() and kernels_used(torch.device("cuda")) != "none"
