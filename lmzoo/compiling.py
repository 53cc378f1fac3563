"""`torch.compile` that records calls of einops as they are, as all compiled code of the package is made."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import einops
import torch


def compiled(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """Returns `torch.compile(function, **options)`, which takes less time to capture functions that call einops."""
    _record_einops()
    return torch.compile(function, **options)


@cache
def _record_einops() -> None:
    # Since einops 0.8.2 torch.compile captures the parser of the patterns too, which takes longer than all else.
    for name in ("rearrange", "reduce", "repeat", "einsum", "pack", "unpack"):
        torch.compiler.allow_in_graph(getattr(einops, name))
