"""Activation statistics of a model, measured on one small batch: what shows that a training is about to go wrong.

Residual features and the load of routers are read by forward hooks, in an eager forward pass of their own; no forward
is replaced, and compiled code is not run. Legend: B batch, T time, D model width, E experts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lmzoo.layers.stack import blocks_of
from lmzoo.model import LanguageModel
from lmzoo.state import State, TimeBuffer, leaves_of
from lmzoo.train.precision import autocast

TOKENS = 256  # most tokens of the batch, which is one row
DIGITS = 6  # significant digits of a figure


@dataclass
class _Recorded:
    """The values that the hooks collect in one forward pass, as tensors on the device of the model."""

    residual: list[Tensor] = field(default_factory=list)  # the input of the first block, and the output of each
    loads: list[Tensor] = field(default_factory=list)  # (E,) of each router: tokens sent to an expert / even share


def activation_statistics(
    model: LanguageModel, tokens: np.ndarray, *, precision: str = "float32", decodes: bool = True
) -> dict[str, Any]:
    """Measure a model on the first `TOKENS` of `tokens` (1-D), at most its context length, in eval mode.

    Returns `residual_rms` (root mean square of the features before the first block and after each), `largest_logit` (by
    absolute value), for a state of constant size `state_norm` ([position, L2 norm of the state after so many tokens]),
    and for experts `router_load` ([least, most] tokens of an expert in each layer, as multiples of the even share).
    What a model does not have is left out; a figure that is not finite is None. `decodes=False` leaves out
    `state_norm`: a sharded model cannot decode.
    """
    ids = tokens[: min(TOKENS, model.config.context_length)].astype(np.int64)
    idx_BT, training = torch.from_numpy(ids)[None].to(model.device), model.training
    model.eval()
    try:
        with torch.no_grad():
            with autocast(model.device, precision), _recorded(model) as found:
                logits_BTV = model(idx_BT).logits
            assert logits_BTV is not None
            statistics: dict[str, Any] = {"largest_logit": _figures([logits_BTV.float().abs().amax()])[0]}
            if found.residual:
                statistics["residual_rms"] = _figures([x.float().square().mean().sqrt() for x in found.residual])
            if found.loads:
                ends = [end for load_E in found.loads for end in torch.aminmax(load_E)]
                least_most = iter(_figures(ends))
                statistics["router_load"] = [list(pair) for pair in zip(least_most, least_most, strict=True)]
            if decodes and model.traits.state_growth == "constant":
                norms = _state_norms(model, idx_BT)
                statistics |= {"state_norm": norms} if norms else {}
    finally:
        model.train(training)
    return statistics


@contextmanager
def _recorded(model: nn.Module) -> Iterator[_Recorded]:
    """Records the forward passes of the block by hooks, which are removed afterwards."""
    found, blocks = _Recorded(), blocks_of(model)

    def first(_: nn.Module, args: tuple[Any, ...]) -> None:
        found.residual.append(args[0])

    def after(_: nn.Module, __: tuple[Any, ...], out: Any) -> None:
        found.residual.append(features_of(out))

    def route(router: nn.Module, args: tuple[Any, ...]) -> None:
        found.loads.append(_load(router, *args))

    handles = [block.register_forward_hook(after) for block in blocks]
    handles += [block.register_forward_pre_hook(first) for block in blocks[:1]]
    routers = [module for module in model.modules() if hasattr(module, "n_experts") and hasattr(module, "route")]
    handles += [router.register_forward_pre_hook(route) for router in routers]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def features_of(out: Any) -> Tensor:
    """Returns the features in the output of a block: a layer with a state returns it too."""
    return out[0] if isinstance(out, tuple) else out


def _load(router: Any, x_BTD: Tensor) -> Tensor:
    """Returns the tokens that are sent to each expert (E,), as multiples of the even share."""
    _, chosen_NK, _ = router.route(x_BTD.flatten(0, 1))
    count_E = torch.bincount(chosen_NK.flatten(), minlength=router.n_experts)
    return count_E * (router.n_experts / chosen_NK.numel())


def _state_norms(model: LanguageModel, idx_BT: Tensor) -> list[list[Any]]:
    """Returns [position, norm of the decoding state] after 1, 2, 4, ... tokens and after the last one."""
    T = idx_BT.shape[1]
    state, read, positions, norms = model.init_state(1, T), 0, list[int](), list[Tensor]()
    for position in sorted({2**n for n in range(T.bit_length())} | {T}):
        _, state = model.decode(idx_BT[:, read:position], state)
        read = position
        parts = _numbers(state["layers"])
        if not parts:
            return []
        positions.append(position)
        norms.append(torch.stack([torch.linalg.vector_norm(part).float() for part in parts]).norm())
    return [[position, norm] for position, norm in zip(positions, _figures(norms), strict=True)]


def _numbers(state: State) -> list[Tensor]:
    """Returns the floating-point tensors of a state, as far as they can be read."""
    tensors = [leaf.entries() if isinstance(leaf, TimeBuffer) else leaf for leaf in leaves_of(state)]
    return [x for x in tensors if isinstance(x, Tensor) and (x.is_floating_point() or x.is_complex())]


def _figures(scalars: Sequence[Tensor]) -> list[float | None]:
    """Returns the numbers in scalar tensors, rounded, with one transfer from the device."""
    values = torch.stack([scalar.double() for scalar in scalars]).tolist()
    return [float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None for value in values]
