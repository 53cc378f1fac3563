"""Counts the FLOPs of an algorithm by its definition, independent of the form that computes it.

torch's counter adds up the matrix products that are run. A chunked or FFT form runs more of them than the definition,
and a loop of outer products runs none that the counter knows. `counted_as` replaces the count of a block of code.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar, Token
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


class FlopCounter:
    """Counts the FLOPs run within a `with` block by torch's formulas, corrected by what `counted_as` declares.

    torch's own `FlopCounterMode` also attributes them to modules, which takes most of its time.
    """

    def __init__(self) -> None:
        self._flops = 0.0
        self._mode = _Counting(self)

    def get_total_flops(self) -> float:
        """FLOPs so far; a float, because a declared number may be one."""
        return self._flops

    def correct(self, n_flops: float) -> None:
        """Add `n_flops`, which may be negative, to the total."""
        self._flops += n_flops

    def __enter__(self) -> FlopCounter:
        self._flops = 0.0
        self._token: Token[FlopCounter | None] = _active.set(self)
        self._mode.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        _active.reset(self._token)
        self._mode.__exit__(*error)


class _Counting(TorchDispatchMode):
    """Adds the FLOPs of each operator that is run to those of a counter."""

    def __init__(self, counter: FlopCounter) -> None:
        super().__init__()
        self._counter = counter

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        formula = flop_registry.get(getattr(func, "_overloadpacket", None))
        if formula is None and _is_composite(func):
            with self:
                return func.decompose(*args, **kwargs)
        out = func(*args, **kwargs)
        if formula is not None:
            self._counter.correct(formula(*args, **kwargs, out_val=out))
        return out


def _is_composite(func: Any) -> bool:
    """True for an operator that is made of others, which reaches a counter undivided in inference mode alone."""
    return isinstance(func, torch._ops.OpOverload) and func._can_decompose()


_active: ContextVar[FlopCounter | None] = ContextVar("active FLOP counter", default=None)


def counted_as(n_flops: float) -> AbstractContextManager[None]:
    """Makes the active `FlopCounter` count `n_flops` instead of the operators in the block.

    Of nested blocks, only the outermost counts. The backward pass is counted by torch. Without an active counter, and
    in compiled code, this does nothing.
    """
    if torch.compiler.is_compiling():
        return nullcontext()
    counter = _active.get()
    return nullcontext() if counter is None else _CountedAs(counter, n_flops)


class _CountedAs(AbstractContextManager[None]):
    def __init__(self, counter: FlopCounter, n_flops: float) -> None:
        self._counter, self._n_flops = counter, n_flops

    def __enter__(self) -> None:
        self._before = self._counter.get_total_flops()

    def __exit__(self, *error: object) -> None:
        after = self._before + self._n_flops
        self._counter.correct(after - self._counter.get_total_flops())
