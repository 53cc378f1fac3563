"""Chooses the form that computes a sequence algorithm, by the length of the sequence, and can say which one and why.

The choice depends on the length alone and never on a measurement of the running process: two forms differ in their last
bits, and a run that is resumed must continue bitwise. The lengths are measured (`lmzoo show NAME --ops`). On a GPU, a
kernel of another package comes first where it fits (`lmzoo.ops.kernels`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch

from lmzoo.ops.kernels import NO_KERNEL, Kernel

Form = Callable[..., Any]


class Choice(NamedTuple):
    """The forms of an algorithm, and the shortest sequence for which a dispatcher takes this package's fast form."""

    naive: Form
    fast: Form
    shortest: int
    kernel: Kernel = NO_KERNEL

    @property
    def name(self) -> str:
        """The name of the algorithm: `naive_delta_rule` is the definition of `delta_rule`."""
        return self.naive.__name__.removeprefix("naive_")

    def form(self, T: int) -> Form:
        """Returns the form for sequences of T tokens."""
        if self.kernel.form is not None:
            return self.kernel.form
        return self.naive if self.shortest > T else self.fast

    def form_name(self, T: int) -> str:
        """Returns the name of this form, for people."""
        return f"kernel of {self.name}" if self.kernel.form is not None else self.form(T).__name__

    def reason(self, T: int) -> str:
        """Returns why this form was chosen."""
        if self.kernel.form is not None:
            return self.kernel.reason
        why = f"T >= {self.shortest}: fewer steps, or cheaper ones"
        if self.shortest > T:
            why = f"T < {self.shortest}: the loop needs fewer calls"
        return f"{why}; {self.kernel.reason}" if self.kernel.reason else why


Watcher = Callable[[Choice, tuple[Any, ...]], object]  # gets a choice, and the arguments of the call


def dispatch(T: int, naive: Form, fast: Form, *, shortest: int, kernel: Kernel = NO_KERNEL) -> Form:
    """Returns the form of `kernel` if it has one, else `naive` for sequences shorter than `shortest`, else `fast`."""
    choice = Choice(naive, fast, shortest, kernel)
    watcher = None if torch.compiler.is_compiling() else _watcher.get()
    if watcher is None:
        return choice.form(T)

    def watched_form(*args: Any) -> Any:
        watcher(choice, args)
        return choice.form(T)(*args)

    return watched_form


@contextmanager
def watch(watcher: Watcher) -> Iterator[None]:
    """Calls `watcher` before each algorithm that a dispatcher starts within the block; not in compiled code."""
    token = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(token)


_watcher: ContextVar[Watcher | None] = ContextVar("watcher of dispatchers", default=None)
