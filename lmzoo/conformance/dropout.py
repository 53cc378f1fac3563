"""Finds dropout written by hand that does not divide what it keeps by 1 - p, as torch's dropout does.

Without the division, features in eval mode are larger than in training by the factor 1 / (1 - p). No mean over many
draws is needed: a draw that drops nothing must give other logits than eval mode does, since it still divides.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from lmzoo.conformance.clones import clone
from lmzoo.conformance.report import Fault
from lmzoo.model import LanguageModel

_TORCHS_OWN = {"dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout"}
_UNIFORM = {"rand", "rand_like", "uniform_"}
_BERNOULLI = {"bernoulli", "bernoulli_"}


@torch.no_grad()
def require_scaled(model: LanguageModel, idx: Tensor) -> None:
    """Raises `Fault` if the dropout of a model, given in eval mode, keeps values as they are.

    Only draws for features or heads are looked at (see `_Draws`): those for layers, rows or tokens (stochastic depth,
    words left out) are no dropout of features.
    """
    plain_BTV = model(idx).logits

    def trained(value: float | None) -> Tensor:
        with torch.random.fork_rng(devices=[]), _Draws(value, idx.shape):
            torch.manual_seed(0)
            return clone(model).train()(idx).logits

    if torch.equal(trained(None), plain_BTV):
        return
    for value in (0.0, 1 - 2**-20):  # a mask may keep what is below a limit, or what is above
        if torch.equal(trained(value), plain_BTV):
            raise Fault(
                "in train mode, a draw in which dropout drops nothing gives the logits of eval mode: what is kept must "
                "be divided by 1 - p, so that eval mode computes the mean; look at dropout that torch does not compute"
            )


class _Draws(TorchFunctionMode):
    """While active, torch's own dropout drops nothing and divides by nothing, and draws for features give one value.

    `value` is a number from 0 to 1 that uniform draws give, or None to leave draws as they are. A draw for features has
    more values than there are tokens (`shape` is B, T), or one for each row and something else.
    """

    def __init__(self, value: float | None, shape: torch.Size) -> None:
        self.value, self.shape = value, shape

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name, kwargs = getattr(func, "__name__", ""), kwargs or {}
        if name in _TORCHS_OWN:
            return args[0] if args else kwargs["input"]
        if name == "scaled_dot_product_attention" and "dropout_p" in kwargs:
            kwargs = {**kwargs, "dropout_p": 0.0}
        chances = args[0].clone() if name == "bernoulli" and len(args) == 1 else 0.5  # others are as likely as not
        out = func(*args, **kwargs)
        is_draw = name in _UNIFORM | _BERNOULLI
        if self.value is None or not is_draw or not self._is_for_features(out.shape):
            return out
        return out.fill_(self.value) if name in _UNIFORM else out.copy_(torch.as_tensor(chances) > self.value)

    def _is_for_features(self, drawn: torch.Size) -> bool:
        B, T = self.shape
        by_row = drawn[:1] == (B,) and any(size not in (1, B, T) for size in drawn)
        return by_row or drawn.numel() > B * T
