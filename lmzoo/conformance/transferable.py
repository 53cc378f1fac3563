"""Checks that the projections which a mixer declares in `transferable` are its projections (docs/transplant.md).

Legend: B batch, T time, H heads of the output, N heads of a projection, K width of a head, L projections of one kind,
D model width.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lmzoo.conformance.layer_calls import ROWS, LayerCall, calls_of
from lmzoo.conformance.measure import FLOAT64_ROUNDING
from lmzoo.conformance.report import Fault
from lmzoo.conformance.tiny import Subject

TOKENS = 19  # or the context, if that is less
NAMES = ("q", "k", "v", "out")
FAR = 8  # tokens: farther than a short convolution reaches
NORM_RANK = 2  # of the effect of one head on another through a norm over all heads: its mean and its scale
LOOK = "the order of rows in `transferable`"


class Place(NamedTuple):
    """The place of a projection: the linear map that holds it, and the features of that map that are its heads."""

    linear: nn.Linear
    features: Tensor  # (..., N, K): rows of the weight, or columns for the output


def transferable(subject: Subject) -> str:
    """Checks that the projections that another mixer can take over are where the mixer declares them.

    Each is a view of parameters with the shape (heads, width of a head, D). Measured by gradients: an output depends on
    the queries of its own token (and of a few before it, by a short convolution), and on keys and values of all; head h
    of the output reads head h // (H / N) of each projection alone, apart from norms over all heads; and each value
    feature reaches its own head.
    """
    model = subject.model().double()
    T = min(subject.context, TOKENS)
    calls, _ = calls_of(model, subject.tokens(ROWS, T), "transferable")
    named: set[str] = set()
    mixers: set[str] = set()
    for call in calls:
        declared: dict[str, Any] = call.layer.transferable()
        if not declared or call.where in mixers:
            continue
        mixers.add(call.where)
        named |= {*declared}
        places = _places(call, declared)
        if "out" in places:
            _require_heads(call.name, _effects(call, places))
    return f"{len(mixers)} mixers, of {', '.join(n for n in NAMES if n in named)}" if mixers else "nothing is declared"


def _places(call: LayerCall, declared: dict[str, Any]) -> dict[str, Place]:
    """Returns the places of projections in linear maps. Raises `Fault` for one that is no view of parameters."""
    parameters = list(call.layer.parameters())
    places: dict[str, Place] = {}
    taken: dict[tuple[int, int], str] = {}  # features of a linear map, by the map and the number
    for name, projection in declared.items():
        what = f"{name} in `transferable` of {call.name}"
        if name not in NAMES:
            raise Fault(f"{what}: the names are {', '.join(NAMES)}")
        weight: Tensor = projection.weight
        if weight.ndim < 3 or (name == "out" and weight.ndim > 3):
            raise Fault(f"{what} has the shape {tuple(weight.shape)}: it must be (heads, width of a head, D)")
        whole = next((p for p in parameters if _storage(p) == _storage(weight)), None)
        if whole is None:
            raise Fault(f"{what} is no view of a parameter of the layer, so what is copied there is lost")
        linears = (m for m in call.layer.modules() if isinstance(m, nn.Linear) and m.weight is whole)
        linear = next(linears, None)
        if linear is None:
            continue
        places[name] = Place(linear, _features(what, weight, whole, of_output=name == "out"))
        for feature in places[name].features.flatten().tolist():
            other = taken.setdefault((id(linear), feature), name)
            if other != name:
                raise Fault(f"{what} shares parameters with {other}")
        _require_bias(what, projection.bias, linear, None if name == "out" else places[name].features)
    return places


def _features(what: str, weight: Tensor, whole: Tensor, *, of_output: bool) -> Tensor:
    """Returns the row of each head feature in the matrix `whole`, or its column for the output."""
    offset = weight.storage_offset() - whole.storage_offset()
    at = torch.arange(whole.numel()).as_strided(weight.shape, weight.stride(), offset)
    features = at % whole.shape[1] if of_output else at // whole.shape[1]
    across = at // whole.shape[1] if of_output else at % whole.shape[1]
    side, size = ("outputs" if of_output else "inputs"), whole.shape[1 - of_output]
    if across.shape[-1] != size or (across != torch.arange(size)).any():
        raise Fault(f"{what} must have all {size} {side} of the linear map in its last axis")
    return features[..., 0]


def _require_bias(what: str, bias: Tensor | None, linear: nn.Linear, rows: Tensor | None) -> None:
    """Raises `Fault` unless the declared bias is the bias of the same rows."""
    whole: Tensor | None = linear.bias
    if bias is None and whole is None:
        return
    if bias is None or whole is None:
        raise Fault(f"{what} {'lacks the bias that its parameters have' if bias is None else 'has a bias of its own'}")
    rows = torch.arange(len(whole)) if rows is None else rows
    offset = bias.storage_offset() - whole.storage_offset()
    if (
        _storage(bias) != _storage(whole)
        or bias.shape != rows.shape
        or not torch.equal(torch.arange(len(whole)).as_strided(bias.shape, bias.stride(), offset), rows)
    ):
        raise Fault(f"{what}: its bias must be a view of the bias of the same rows, {tuple(rows.shape)}")


def _require_heads(layer: str, effects: dict[str, Tensor]) -> None:
    """Raises `Fault` unless the output reads each projection as its name says, head by head.

    `effects` is the result of `_effects`.
    """
    reaches: dict[str, int] = {}
    for name, effect in effects.items():
        distance = _reach(effect)
        if distance is None:
            raise Fault(f"{name} in `transferable` of {layer} has no effect on the heads of the output; look at {LOOK}")
        reaches[name] = distance
    far = max((reach for name, reach in reaches.items() if name != "q"), default=0)
    for name, reach in reaches.items():
        if far >= FAR and (reach == far if name == "q" else reach < FAR):
            raise Fault(
                f"an output depends on {name} in `transferable` of {layer} as far as {reach} tokens back, and "
                f"{'queries act at their own token' if name == 'q' else f'on other keys and values as far as {far}'}; "
                f"look at {LOOK}"
            )
    for name, effect in effects.items():
        _require_own_heads(f"{name} in `transferable` of {layer}", effect, is_value=name == "v")


def _effects(call: LayerCall, places: dict[str, Place]) -> dict[str, Tensor]:
    """Returns the derivatives of the last token's heads (H, K) by each projection of each token: (H, K, T, L, N, K).

    One backward pass computes all of them: each row of a batch of equal rows reads another feature. Projections of maps
    that run several times, or not on (B, T, D), are left out.
    """
    out = places["out"]
    features = out.features.flatten()
    seen: dict[nn.Module, list[Tensor]] = {}

    def keep(linear: nn.Module, inputs: tuple[Any, ...], made: Tensor) -> None:
        (x,) = inputs
        seen.setdefault(linear, []).append(x if linear is out.linear else made)

    linears = {place.linear for place in places.values()}
    handles = [linear.register_forward_hook(keep) for linear in linears]
    try:
        call.again(len(features))
    finally:
        for handle in handles:
            handle.remove()
    once = {linear: first for linear, (first, *others) in seen.items() if not others and first.ndim == 3}
    wanted = {name: place for name, place in places.items() if name != "out" and place.linear in once}
    if out.linear not in once or not wanted:
        return {}
    heads_BX = once[out.linear][:, -1]
    read = heads_BX[torch.arange(len(features)), features].sum()
    made = [once[place.linear] for place in wanted.values()]
    grads = torch.autograd.grad(read, made, allow_unused=True)
    found: dict[str, Tensor] = {}
    for (name, place), grad, like in zip(wanted.items(), grads, made, strict=True):
        by_feature = (torch.zeros_like(like) if grad is None else grad)[..., place.features.flatten()]
        heads = place.features.shape[-2:]
        found[name] = by_feature.unflatten(-1, (-1, *heads)).unflatten(0, out.features.shape)
    return found


def _reach(effect: Tensor) -> int | None:
    """Returns the distance of the farthest token that has an effect, or None if none has."""
    size_T = effect.abs().amax(dim=(0, 1, 3, 4, 5))
    found = (size_T > FLOAT64_ROUNDING * size_T.max()).nonzero()
    return None if not len(found) else len(size_T) - 1 - int(found[0])


def _require_own_heads(what: str, effect_HKTLNK: Tensor, *, is_value: bool) -> None:
    """Raises `Fault` unless each head of the output reads its own head of a projection alone, at its own token."""
    H, K, _, _, N, _ = effect_HKTLNK.shape
    if H % N:
        raise Fault(f"{what} has {N} heads, which must divide the {H} heads of the output")
    ranks_HLN = _ranks(effect_HKTLNK[:, :, -1].permute(0, 2, 3, 1, 4))
    for h in range(H):
        own = h // (H // N)
        for n in range(N):
            if n != own and (ranks_HLN[h, :, n] > NORM_RANK).any():
                raise Fault(
                    f"head {h} of the output depends on head {n} of {what}, and should on head {own}; look at {LOOK}"
                )
        if ranks_HLN[h].any() and not ranks_HLN[h, :, own].any():
            raise Fault(f"head {h} of the output does not depend on head {own} of {what}; look at {LOOK}")
        # The most of all tokens: at one of them an activation may have closed many features.
        rank = int(_ranks(effect_HKTLNK[h, :, :, :, own].permute(1, 2, 0, 3)).amax())
        if is_value and rank and 2 * rank < K:
            raise Fault(
                f"head {h} of the output depends on head {own} of {what} in {rank} of {K} directions: each feature "
                f"of a value should have an effect of its own; look at {LOOK}"
            )


def _ranks(effect: Tensor) -> Tensor:
    """Returns the ranks of matrices in the last two axes; singular values that are rounding do not count."""
    values = torch.linalg.svdvals(effect)
    return (values > FLOAT64_ROUNDING * values.max()).sum(dim=-1)


def _storage(tensor: Tensor) -> int:
    """Returns the address of the memory that a tensor is a view of."""
    return tensor.untyped_storage().data_ptr()
