"""Counts the FLOPs of an algorithm by its definition, independent of the form that computes it.

torch's counter adds up the matrix products that are run. A chunked or FFT form runs more of them than the definition,
and a loop of outer products runs none that the counter knows. `counted_as` replaces the count of a block of code.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar, Token
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode


class FlopCounter(FlopCounterMode):
    """torch's counter of the FLOPs run within a `with` block, corrected by the numbers that `counted_as` declares."""

    def __init__(self) -> None:
        super().__init__(display=False)
        self._correction = 0.0

    def get_total_flops(self) -> float:  # type: ignore[override]
        """FLOPs so far; a float, because a declared number may be one."""
        return super().get_total_flops() + self._correction

    def correct(self, n_flops: float) -> None:
        """Add `n_flops`, which may be negative, to the total."""
        self._correction += n_flops

    def __enter__(self) -> FlopCounter:
        self._correction = 0.0
        self._token: Token[FlopCounter | None] = _active.set(self)
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> Any:
        _active.reset(self._token)
        return super().__exit__(*error)


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
