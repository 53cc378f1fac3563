"""Checks that what layers offer to be looked at (`lmzoo.layers.offers`, docs/inspect.md) is what they compute.

Legend: B batch, T time, S positions that are read (S = T), H heads, D features, E experts, K experts of a token, F
features of any tensor.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lmzoo.conformance.layer_calls import ROWS, LayerCall, calls_of
from lmzoo.conformance.measure import FLOAT64_ROUNDING, difference, require_same_bits
from lmzoo.conformance.report import Fault
from lmzoo.conformance.tiny import Subject
from lmzoo.layers.offers import VOCABULARY

TOKENS = 19  # or the context, if that is less: unlike every other size of the tiny form, and more than it has heads
PARALLEL = 1e-6  # largest part of a gradient outside of the weights that the layer is said to use, of its norm
SAME = 1e-8  # relative: two equal numbers in float64, computed in different ways
RANGES = {"gates.decay": (-1, 1), "gates.reset": (0, 1), "router.probabilities": (0, 1), "chunks.start": (0, 1)}
LOOK = "`offers`: it computes its values anew, by the methods that `forward` uses"

Values = dict[str, Tensor]


def offers(subject: Subject) -> str:
    """Checks that what layers offer to be looked at is what they compute, and that asking for it changes nothing.

    Values have the names and shapes of docs/inspect.md, do not depend on later tokens or on what the model computed
    before, and lie in their ranges. Attention weights are 0 for later positions, and are those with which the output
    reads values: the gradient with respect to the values is the gradient with respect to their weighted mean, times the
    weights. The chosen experts are those whose parameters have a gradient.
    """
    model = subject.model().double()
    T = min(subject.context, TOKENS)
    cut = T // 2
    idx, others = subject.tokens(1, T), subject.tokens(ROWS - 1, T, seed=1)
    others[0, :cut] = idx[0, :cut]  # the first two rows differ from the cut on
    rows = torch.cat([idx, others])
    with torch.no_grad():
        before_BTV = model(rows).logits
    random = torch.get_rng_state()
    found: list[Values] = []
    calls, logits_BTV = calls_of(model, rows, "offers", lambda call: found.append(_ask(call)))
    require_same_bits(logits_BTV, before_BTV, "a forward pass in which layers are asked what they offer", LOOK)
    with torch.no_grad():
        require_same_bits(model(rows).logits, before_BTV, "after layers were asked what they offer, the model", LOOK)
    if not torch.equal(torch.get_rng_state(), random):
        raise Fault(f"asking layers what they offer uses torch's global random state; look at {LOOK}")
    for call, values, late in zip(calls, found, _after_another_text(subject, rows), strict=True):
        for name, value in values.items():
            what = f"{name} of {call.name}"
            _require_form(what, name, value, T, len(rows))
            if name not in late or not torch.equal(late[name], value):
                raise Fault(f"{what} is another one if the model has read another text; look at {LOOK}")
            off = difference(value[1, :cut], value[0, :cut])
            if not off <= FLOAT64_ROUNDING:
                raise Fault(f"{what} changes by {off:.2g} at earlier positions with the tokens from {cut} of {T} on")
        _require_router(call, values)
        for name in ("attention.weights", "attention.window"):
            if name in values:
                _require_used(call, name, values[name][0])
    names = sorted({name for values in found for name in values})
    return f"{len(found)} layers offer {', '.join(names)}" if names else "no layer offers values"


def _after_another_text(subject: Subject, rows_BT: Tensor) -> list[Values]:
    """Returns what the layers offer if they were asked about another text before, and have read it since."""
    model, others_BT = subject.model().double(), subject.tokens(*rows_BT.shape, seed=1)
    for call in calls_of(model, others_BT, "offers")[0]:
        _ask(call)
    calls, _ = calls_of(model, rows_BT, "offers")
    with torch.no_grad():
        model(others_BT)
    return [_ask(call) for call in calls]


@torch.no_grad()
def _ask(call: LayerCall) -> Values:
    """Returns what a layer offers for one of its calls, as `lmzoo.inspect.record` asks it."""
    x_BTD = call.inputs[0].clone()
    values: Values = call.layer.offers(*call.inputs[:1], *call.inputs[2:])
    if not torch.equal(call.inputs[0], x_BTD):
        raise Fault(f"{call.name} changes its input when it is asked what it offers; look at {LOOK}")
    return values


def _require_form(what: str, name: str, value: Any, T: int, B: int) -> None:
    """Raises `Fault` unless a value has a name of the vocabulary, its shape and dtype, and lies in its range."""
    if name not in VOCABULARY:
        raise Fault(f"{what}: the names are {', '.join(VOCABULARY)}")
    shape, _, dtype = VOCABULARY[name].shape.partition(") ")
    axes = shape.strip("()").split(", ")
    sizes = {"B": B, "T": T, "S": T, "3": 3}
    known = {place: sizes[axis] for place, axis in enumerate(axes) if axis in sizes}
    is_open = axes[-1] == "..."
    actual = tuple(value.shape)
    if not (len(actual) >= len(axes) - 1 if is_open else len(actual) == len(axes)) or any(
        actual[place] != size for place, size in known.items()
    ):
        raise Fault(f"{what} has the shape {actual} instead of {shape})".replace("))", ")") + f" with B={B}, T={T}")
    if value.dtype != torch.int64 if dtype else not value.is_floating_point():
        raise Fault(f"{what} has the dtype {value.dtype} instead of {dtype or 'a floating point type'}")
    if not value.isfinite().all():
        raise Fault(f"{what} is not finite")
    low, high = RANGES.get(name, (-torch.inf, torch.inf))
    if value.min() < low - FLOAT64_ROUNDING or value.max() > high + FLOAT64_ROUNDING:
        raise Fault(f"{what} reaches from {value.min():.3g} to {value.max():.3g}: it must lie in [{low}, {high}]")
    if name.startswith("attention.") and value.transpose(1, 2).triu(1).any():
        raise Fault(f"{what} is not 0 for a position later than the one that reads")


def _require_router(call: LayerCall, values: Values) -> None:
    """Raises `Fault` if probabilities do not sum to 1, or if other experts compute a token than those offered."""
    p_BTE, chosen_BTK = values.get("router.probabilities"), values.get("router.chosen")
    if p_BTE is not None and (p_BTE.sum(dim=-1) - 1).abs().max() > PARALLEL:
        raise Fault(f"router.probabilities of {call.name} do not sum to 1")
    if p_BTE is None or chosen_BTK is None:
        return
    E = p_BTE.shape[-1]
    if chosen_BTK.min() < 0 or chosen_BTK.max() >= E or (chosen_BTK.sort(dim=-1).values.diff(dim=-1) == 0).any():
        raise Fault(f"router.chosen of {call.name} must hold different numbers in [0, {E})")
    weights_BTK = values.get("router.weights")
    if weights_BTK is not None and weights_BTK.shape != chosen_BTK.shape:
        raise Fault(f"router.weights of {call.name} must have one entry for each in router.chosen")
    active, named = getattr(call.layer, "active", ()), call.layer.named_parameters()
    stacks = [p for name, p in named if name in active and len(p) == E and p.requires_grad]
    (y_TD,) = call.again(1)
    for t in (len(y_TD) - 1, len(y_TD) // 2) if stacks else ():
        grads = torch.autograd.grad(_read(y_TD[t]), stacks, allow_unused=True, retain_graph=True)
        used = {
            e for grad in grads if grad is not None for e in grad.flatten(1).any(dim=1).nonzero().flatten().tolist()
        }
        if used != {*chosen_BTK[0, t].tolist()}:
            raise Fault(
                f"at position {t}, router.chosen of {call.name} is {sorted(chosen_BTK[0, t].tolist())}, and the output "
                f"depends on the experts {sorted(used)}; look at {LOOK}"
            )


def _require_used(call: LayerCall, name: str, weights_THS: Tensor) -> None:
    """Raises `Fault` unless the layer's output reads values with these weights.

    If a head reads the mean of values v_s with the weights w_s, then the gradient with respect to v_s is w_s times the
    gradient m with respect to the mean, whatever follows (gates, norms, projections). So among the gradients with
    respect to everything that the layer computes, some must be such multiples of the weights of each head, or of a sum
    of heads that share their values, and the factors must be gradients of something at the position that reads.
    """
    T, H, _ = weights_THS.shape
    (y_TD,) = call.again(1)
    complete: list[bool] = []  # a gate may close a head at one position
    for t in (T - 1, T // 2):
        w_SH = weights_THS[t].T
        rank = int(torch.linalg.matrix_rank(w_SH, rtol=PARALLEL))
        if rank >= t + 1:  # so few positions can be read that any gradient is such a multiple
            continue
        grads_SF = _gradients_inside(_read(y_TD[t]), T)
        basis_SR = torch.linalg.svd(w_SH).U[:, :rank]
        norms_F = grads_SF.norm(dim=0)
        outside_F = (grads_SF - basis_SR @ (basis_SR.T @ grads_SF)).norm(dim=0)
        values_SF = grads_SF[:, outside_F <= PARALLEL * norms_F]
        found = int(torch.linalg.matrix_rank(values_SF / values_SF.norm(dim=0), rtol=PARALLEL))
        complete.append(found >= rank)
        if not found or (len(complete) == 2 and not any(complete)):
            raise Fault(
                f"the output of {call.name} at position {t} does not read values with the weights in {name}: no "
                f"gradient with respect to values is a multiple of them; look at {LOOK}"
            )
        if rank == H:
            _require_scale(call, name, t, w_SH, values_SF, grads_SF)


def _require_scale(call: LayerCall, name: str, t: int, w_SH: Tensor, values_SF: Tensor, grads_SF: Tensor) -> None:
    """Raises `Fault` unless the factors of the weights in `values_SF` are gradients of something at position t."""
    factors_HF = torch.linalg.lstsq(w_SH, values_SF).solution
    own_M = grads_SF[t, (grads_SF != 0).sum(dim=0) == 1]
    for h, factors_F in enumerate(factors_HF):
        if factors_F.abs().max() <= SAME * factors_HF.abs().max():
            continue  # a gate closes this head
        large_F = factors_F[factors_F.abs() > 1e-3 * factors_F.abs().max()]
        off_FM = (large_F[:, None] - own_M).abs() / large_F[:, None].abs()
        if not off_FM.numel() or off_FM.min() > SAME:
            raise Fault(
                f"the output of {call.name} at position {t} reads values with other weights than {name} of head {h}, "
                f"of which they are multiples; look at {LOOK}"
            )


def _read(y_D: Tensor) -> Tensor:
    """Returns a scalar that depends on all features."""
    return y_D @ torch.linspace(0.5, 1.5, len(y_D), dtype=y_D.dtype).cos()


def _gradients_inside(read: Tensor, T: int) -> Tensor:
    """Returns the gradients of a scalar with respect to all that it was computed from, by position: (T, F).

    The tensors between are those at the nodes of the autograd graph; of them, those with an axis of T positions.
    """
    found: list[Tensor] = []

    def keep(grads: tuple[Tensor | None, ...]) -> None:
        for grad in grads:
            for axis, size in enumerate(() if grad is None else grad.shape):
                if size == T and grad is not None:
                    found.append(grad.movedim(axis, 0).flatten(1))

    nodes, waiting = set[Any](), [read.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in nodes:
            nodes.add(node)
            waiting += [following for following, _ in node.next_functions]
    handles = [node.register_prehook(keep) for node in nodes]
    try:
        read.backward(retain_graph=True)
    finally:
        for handle in handles:
            handle.remove()
    grads_TF = torch.cat([torch.view_as_real(x).flatten(1) if x.is_complex() else x for x in found], dim=1).double()
    return grads_TF[:, grads_TF.any(dim=0)]
