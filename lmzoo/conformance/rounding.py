"""Rounds only the linear maps of a model to bfloat16: the least error that training in bfloat16 has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


class RoundedLinear(TorchFunctionMode):
    """While active, every `F.linear` rounds its input, its weight, its bias and its result to bfloat16.

    All else keeps its dtype. So what a float64 model gives differs from the exact result by what no layer can avoid.
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
