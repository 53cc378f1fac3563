"""Rounds linear maps only, as training in bfloat16 always does, and finds angles that bfloat16 cannot hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from lmzoo.conformance.report import Fault

ANGLE = 64.0  # radians: from here on, the numbers of bfloat16 are at least half a radian apart
_WAVES = {torch.cos, torch.sin, Tensor.cos, Tensor.sin}


class RoundedLinear(TorchFunctionMode):
    """While active, every `F.linear` rounds its input, its weight, its bias and its result to bfloat16.

    Everything else keeps its dtype. So the logits of a float64 model are off by the error that no layer can avoid.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is not F.linear:
            return func(*args, **kwargs)
        rounded = [_rounded(value) for value in args]
        return _rounded(func(*rounded, **{name: _rounded(value) for name, value in kwargs.items()}))


def _rounded(value: Any) -> Any:
    return value.to(torch.bfloat16).to(value.dtype) if isinstance(value, Tensor) else value


class WideAngles(TorchFunctionMode):
    """While active, raises `Fault` for the sine or cosine of a large angle in bfloat16: positions are rounded together.

    The error of logits would not show it, because with random weights they hardly depend on distant positions.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in _WAVES and args[0].dtype == torch.bfloat16 and args[0].numel():
            largest = args[0].abs().max().item()
            if largest >= ANGLE:
                raise Fault(
                    f"the {func.__name__} of an angle of {largest:.4g} is taken in {args[0].dtype}, whose "
                    "numbers are half a radian apart there, or more; look at positions and angles: compute them in "
                    "float32 or wider"
                )
        return func(*args, **(kwargs or {}))
