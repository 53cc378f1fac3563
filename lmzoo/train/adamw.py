"""torch's AdamW without the wrappers that import torch's compiler, whose import takes more than a second.

torch wraps these methods so that `torch.compile` leaves the optimizer out of a compiled step. The trainer compiles the
forward pass alone, so the wrappers would have no other effect.
"""

from __future__ import annotations

from inspect import unwrap
from typing import Any

import torch
from torch import optim

_step = unwrap(optim.AdamW.step)


class AdamW(optim.AdamW):
    """`torch.optim.AdamW` (Loshchilov & Hutter 2019, arXiv 1711.05101), the same in each bit."""

    add_param_group = unwrap(optim.AdamW.add_param_group)
    zero_grad = unwrap(optim.AdamW.zero_grad)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Update every parameter that has a gradient."""
        return _step(self, closure)
