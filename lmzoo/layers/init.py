"""Initial values of parameters: functions `(parameter, generator) -> None` that fill a tensor in place.

A layer names the function where it makes the parameter, so a reader sees shape and initial values in one line.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial

import torch
from torch import Tensor, nn

Init = Callable[[Tensor, torch.Generator | None], object]

_is_deferred = ContextVar("_is_deferred", default=False)


def normal(std: float = 0.02) -> Init:
    """Returns an initializer that draws from N(0, std²)."""
    return partial(_normal, std)


def small_init(d_model: int) -> Init:
    """Returns the initializer N(0, 2 / (5 d_model)) (Nguyen & Salazar 2019, arXiv 1910.05895)."""
    return normal(math.sqrt(2 / (5 * d_model)))


def uniform(bound: float) -> Init:
    """Returns an initializer that draws uniformly from ±bound."""
    return partial(_uniform, bound)


def uniform_fan_in(scale: float = 1.0) -> Init:
    """Returns an initializer that draws uniformly from ±scale/sqrt(last dimension); scale 1 is torch's default."""
    return partial(_uniform_fan_in, scale)


def constant(value: float) -> Init:
    """Returns an initializer that sets every element to `value`."""
    return partial(_constant, value)


def log_of_uniform(low: float, high: float) -> Init:
    """Returns an initializer that draws logarithms of numbers that are uniform between `low` and `high`."""
    return partial(_log_of_uniform, low, high)


def step_sizes(low: float, high: float) -> Init:
    """Returns an initializer for biases b whose softplus, a step size, is log-uniform between `low` and `high`."""
    return partial(_step_sizes, low, high)


def _normal(std: float, w: Tensor, generator: torch.Generator | None) -> None:
    nn.init.normal_(w, std=std, generator=generator)


def _uniform(bound: float, w: Tensor, generator: torch.Generator | None) -> None:
    nn.init.uniform_(w, -bound, bound, generator=generator)


def _uniform_fan_in(scale: float, w: Tensor, generator: torch.Generator | None) -> None:
    _uniform(scale / math.sqrt(w.shape[-1]), w, generator)


def _constant(value: float, w: Tensor, _: torch.Generator | None) -> None:
    nn.init.constant_(w, value)


def _log_of_uniform(low: float, high: float, w: Tensor, generator: torch.Generator | None) -> None:
    w.uniform_(low, high, generator=generator).log_()


def _step_sizes(low: float, high: float, w: Tensor, generator: torch.Generator | None) -> None:
    """Sets w = log(exp(size) - 1), the inverse of softplus, without cancellation."""
    w.uniform_(math.log(low), math.log(high), generator=generator)
    size = w.exp()
    w.copy_(size + torch.log(-torch.expm1(-size)))


@contextmanager
def deferred() -> Generator[None]:
    """Makes constructors of layers leave their parameters uninitialized, for a caller that calls `init_weights` next.

    Otherwise the weights would be drawn twice, by the constructors and by `init_weights`.
    """
    token = _is_deferred.set(True)
    try:
        yield
    finally:
        _is_deferred.reset(token)


def is_deferred() -> bool:
    """True inside `deferred`."""
    return _is_deferred.get()
