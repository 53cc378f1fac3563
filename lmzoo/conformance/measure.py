"""Compares two results and reports how much and where they differ; used by all checks."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from lmzoo import state as states
from lmzoo.conformance.report import Fault
from lmzoo.model import LanguageModel
from lmzoo.state import State

# Relative to the largest value. Another batch size or split changes the order of float32 sums, and so the rounding.
ROUNDING = 1e-4
# The same in float64, where the order of a sum changes it by about 1e-15: a larger difference is a dependence.
FLOAT64_ROUNDING = 1e-9
DRIFT = 0.1  # of the largest logit: bfloat16 has 8 bits, and rounding errors of several layers add up
NEAR = 0.75  # share of positions that must be within DRIFT: at others, rounding makes a router choose another expert


def difference(actual: Tensor, expected: Tensor) -> float:
    """Returns the largest difference relative to the largest value of `expected` (at least 1).

    Infinite when a value is not finite. Raises `Fault` when the shapes differ.
    """
    if actual.shape != expected.shape:
        raise Fault(f"shape {tuple(actual.shape)} instead of {tuple(expected.shape)}")
    if actual.numel() == 0:
        return 0.0
    worst = (actual.double() - expected.double()).abs().max().item()
    return worst / max(1.0, expected.abs().max().item()) if math.isfinite(worst) else math.inf


def first_position(actual_BTV: Tensor, expected_BTV: Tensor, tolerance: float = 0.0) -> str:
    """Names the first position (then row) where two (B, T, ...) tensors differ by more than `tolerance`."""
    off_BTV = ~((actual_BTV - expected_BTV).abs() <= tolerance * max(1.0, expected_BTV.abs().max().item()))
    row_T = off_BTV.flatten(2).any(2)
    t = int(row_T.any(0).nonzero()[0])
    row = int(row_T[:, t].nonzero()[0])
    return f"position {t} of row {row}"


def require_equal(actual: Tensor, expected: Tensor, what: str, where: str, tolerance: float = ROUNDING) -> float:
    """Returns the difference of two tensors; raises `Fault` when it is more than `tolerance`."""
    off = difference(actual, expected)
    if not off <= tolerance:
        raise Fault(f"{what} {_size(off, tolerance, where)}")
    return off


def require_exact(
    actual: Tensor, expected: Tensor, what: str, where: str, model: LanguageModel, idx: Tensor, state: State = None
) -> float:
    """Returns the difference of two results of a float64 model on `idx`; raises `Fault` if it is more than rounding.

    If the model computes a part in float32, or holds float32 in its state, rounding of float32 is allowed.
    """
    off = difference(actual, expected)
    if off <= FLOAT64_ROUNDING:
        return off
    kept_narrow = any(tensor.dtype in _NARROW for tensor in states.tensors(state))
    seen = idx[:, -model.config.context_length :]
    if off <= ROUNDING and (kept_narrow or float32_line(lambda: model(seen))):
        return off
    raise Fault(f"{what} {_size(off, FLOAT64_ROUNDING, where, ' in float64')}")


# Parts of hints, each used by several checks.
NOT_FINITE = "exponentials, logarithms, roots and divisions, at zero and at large values"
STRAIGHT_THROUGH = " (if a straight-through gradient is intended, use lmzoo.ops.straight_through)"


def _size(off: float, allowed: float, where: str, dtype: str = "") -> str:
    """Returns the end of a message about a result that is off by more than allowed: its size, and where to look."""
    if math.isinf(off):
        return f"is not finite, or what it is compared with is not; look at {NOT_FINITE}"
    return f"is off by {off:.2g} of the largest value (allowed {allowed:g}{dtype}); look at {where}"


def require_near(actual_BTV: Tensor, expected_BTV: Tensor, what: str, where: str, allowed: float = DRIFT) -> float:
    """Raises `Fault` unless most positions of the second half, where rounding errors have added up, are close."""
    actual_BTV, expected_BTV = actual_BTV.double(), expected_BTV.double()
    if not torch.isfinite(actual_BTV).all():
        raise Fault(f"{what} is not finite; look at {where}")
    off_BT = (actual_BTV - expected_BTV).abs().amax(-1) / expected_BTV.abs().max().clamp(min=1)
    off = off_BT[:, off_BT.shape[1] // 2 :].flatten().quantile(NEAR).item()
    if not off <= allowed:
        raise Fault(
            f"{what} is off by {off:.2g} of the largest value or more at a quarter of the later positions "
            f"(allowed {allowed:g}); look at {where}"
        )
    return off


def require_same_bits(actual: Tensor, expected: Tensor, what: str, where: str) -> None:
    """Raises `Fault` unless the two tensors are bitwise equal."""
    if not torch.equal(actual, expected):
        raise Fault(f"{what} is off by {difference(actual, expected):.2g}, and must be bitwise equal; look at {where}")


def require_rows(which: str, state: Any, rows: int) -> None:
    """Raises `Fault` unless the first axis of every tensor of a state has one entry per row."""
    for tensor in states.tensors(state):
        if tensor.ndim == 0 or tensor.shape[0] != rows:
            raise Fault(
                f"{which} of {rows} rows holds a tensor {tuple(tensor.shape)}: the first axis of every tensor must be "
                "the batch; look at init_state()"
            )


def backward(loss: Tensor) -> None:
    """Runs the backward pass, unless the loss has no gradient, which only the check `gradients` reports."""
    if loss.requires_grad:
        loss.backward()


def in_bfloat16(forward: Callable[[], Tensor]) -> Tensor:
    """Returns what `forward` computes under autocast to bfloat16.

    oneDNN raises an error if it has no bfloat16 kernel for this CPU (torch.nn.LSTM). Then it is switched off.
    """
    with torch.autocast("cpu", torch.bfloat16):
        try:
            return forward()
        except RuntimeError as error:
            if "primitive descriptor" not in str(error):
                raise
        with warnings.catch_warnings(action="ignore"), torch.backends.mkldnn.flags(enabled=False):
            return forward()


def float32_hint(forward: Callable[[], object], off: float = 0.0) -> str:
    """Returns the end of a message about a float64 model whose result is off by `off`: where it computes in float32.

    Empty when `off` is larger than float32 rounding, or when `forward` computes everything in float64.
    """
    line = float32_line(forward) if off <= ROUNDING else ""
    return (
        f"; something is computed in float32 there, at {line} (`.float()`): use `lmzoo.ops.precision.wide`"
        if line
        else ""
    )


def float32_line(forward: Callable[[], object]) -> str:
    """Returns the line at which `forward` of a float64 model casts activations to float32; empty if it never does."""
    with torch.enable_grad(), _Narrowing() as narrowing:
        forward()
    return narrowing.line


class _Narrowing(TorchFunctionMode):
    """Finds, while active, the first operation that casts float64 activations to a narrower dtype.

    Tensors without a gradient are ignored: a rounded table of constants is the same in every call.
    """

    line = ""  # file and line of the caller

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if not self.line:
            given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor) and x.requires_grad and x.ndim > 0]
            made = [x for x in tree_leaves(out) if isinstance(x, Tensor)]
            if any(x.dtype in _WIDE for x in given) and any(x.dtype in _NARROW for x in made):
                self.line = _caller()
        return out


_WIDE = {torch.float64, torch.complex128}
_NARROW = {torch.float32, torch.complex64, torch.bfloat16, torch.float16}


def _caller() -> str:
    """Returns the innermost line of the call stack outside torch and this package, as `file.py:12`."""
    others = {Path(torch.__file__).parent, Path(__file__).parent}
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if others.isdisjoint(path.parents):
            return f"{path.name}:{frame.f_lineno}"
        frame = frame.f_back
    return "an unknown line"
