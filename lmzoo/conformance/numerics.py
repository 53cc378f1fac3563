"""Checks of gradients in float64, and of logits in bfloat16."""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn

from lmzoo.conformance.choices import Choices
from lmzoo.conformance.decoding import decode_steps
from lmzoo.conformance.kept import require_vectors_kept
from lmzoo.conformance.lengths import depends_on_length, expected_logits
from lmzoo.conformance.measure import STRAIGHT_THROUGH, backward, float32_hint, in_bfloat16, require_near
from lmzoo.conformance.report import Fault
from lmzoo.conformance.tiny import Subject
from lmzoo.inference.weights import cast_weights
from lmzoo.model import LanguageModel
from lmzoo.ops.straight_through import smooth

STEP = 1e-5
LOST = 0.1  # of the effect of other initial values. Rounding of values around 1 and spread as far has 0.01
TOGETHER = 4  # parameters whose gradients are compared in one finite difference


def float64_gradients(subject: Subject) -> str:
    """Checks the gradient of every parameter against finite differences of the loss, in float64.

    Typical faults: an error in a hand-written backward pass, a tensor changed in place, a detached tensor.
    """
    model = subject.model().double()
    T = min(subject.context, 19)  # past one chunk of a chunked scan
    idx, targets = subject.tokens(2, T), subject.tokens(2, T, seed=1)
    choices = Choices(model)
    with choices.recorded(), smooth():
        loss = model(idx, targets).loss
    backward(loss)
    generator = torch.Generator().manual_seed(0)
    directions = []
    for name, parameter in ((name, p) for name, p in model.named_parameters() if p.requires_grad):
        direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        directions.append((name, parameter, direction / direction.norm()))
    worst, wrong = 0.0, list[tuple[str, float, float]]()
    for start in range(0, len(directions), TOGETHER):
        some = directions[start : start + TOGETHER]
        off, *_ = _slope_error(model, idx, targets, some, choices)
        worst = max(worst, off)
        for one in some if not off <= 1e-4 else ():  # several at once are quicker; one at a time names the parameter
            off, gradient, measured = _slope_error(model, idx, targets, [one], choices)
            if not off <= 1e-3:
                wrong.append((one[0], gradient, measured))
    if wrong:  # a mistake makes the gradients of all earlier layers wrong, so the last one is next to it
        name, gradient, measured = wrong[-1]
        others = f", and of {len(wrong) - 1} before it, from {wrong[0][0]} on," if len(wrong) > 1 else ""
        raise Fault(
            f"the gradient of {name}{others} is wrong: {gradient:.6g} along a random direction, the finite difference "
            f"of the loss {measured:.6g}; look at the backward pass of what uses it, and at detached tensors"
            f"{STRAIGHT_THROUGH}{choices.hint}{float32_hint(lambda: model(idx))}"
        )
    return f"the gradient of every parameter agrees with finite differences to {worst:.1g}"


def _slope_error(
    model: LanguageModel,
    idx: Tensor,
    targets: Tensor,
    directions: list[tuple[str, nn.Parameter, Tensor]],
    choices: Choices,
) -> tuple[float, float, float]:
    """Returns the relative error of the gradient along the directions together, and the two slopes compared."""
    with torch.no_grad():
        gradient = sum(float((p.grad * d).sum()) for _, p, d in directions if p.grad is not None)
        values = []
        for sign in (1, -2, 1):  # to + STEP, to - STEP, and back to the start
            for _, parameter, direction in directions:
                parameter.add_(direction, alpha=sign * STEP)
            with choices.repeated("a step of a finite difference"), smooth():
                values.append(model(idx, targets).loss.item())
    measured = (values[0] - values[1]) / (2 * STEP)
    return abs(measured - gradient) / max(abs(measured), abs(gradient), 1e-4), gradient, measured


def bfloat16(subject: Subject) -> str:
    """Checks that logits stay close to float32: under autocast to bfloat16, with bfloat16 weights, and in decoding.

    A model with chooses=True in traits takes the entries of the float32 run, and must choose nearly as well by itself.
    """
    model = subject.model()
    T = subject.context
    idx = subject.tokens(2, T)
    choices = Choices(model)
    with choices.recorded():
        exact_BTV = model(idx).logits
    where = f"exponents and long sums{choices.hint}"
    what = "forward under autocast to bfloat16"
    with choices.repeated(what):
        cast_BTV = in_bfloat16(lambda: model(idx).logits)
    off = require_near(cast_BTV, exact_BTV, what, where)
    rounded, what = cast_weights(subject.model(), torch.bfloat16), "forward with bfloat16 weights"
    with choices.repeated(what):
        rounded_BTV = rounded(idx).logits
    off = max(off, require_near(rounded_BTV, exact_BTV, what, where))
    in_steps = Choices(model)
    if in_steps.declared:
        with in_steps.recorded():
            decode_steps(model, idx, model.init_state(*idx.shape))
    with in_steps.repeated("decoding in bfloat16", chunks=T):
        steps_BTV, _ = decode_steps(rounded, idx, rounded.init_state(*idx.shape))
    if depends_on_length(rounded):
        rounded_BTV = expected_logits(subject, rounded, idx)
    drift = require_near(steps_BTV, rounded_BTV, "decoding in bfloat16", f"the dtype of the state{choices.hint}")
    _require_kept(subject)
    require_vectors_kept(subject)
    return f"off by {off:.2g} of the largest logit at most positions, decoding by {drift:.2g}"


@torch.no_grad()
def _require_kept(subject: Subject) -> None:
    """Raises `Fault` if a vector is nearly lost by rounding to bfloat16, as decays between 0.99 and 1 are.

    The measure is the effect of other values of its kind: new initial ones, or those of its neighbors.
    """
    model, other = (subject.model(perturbed=False, seed=seed).double() for seed in (0, 1))
    idx = subject.tokens(2, subject.context)
    logits_BTV = model(idx).logits
    vectors = {id(p) for group in model.parameter_groups(0.0) if group["role"] == "vector" for p in group["params"]}
    kept = {
        f"{where}.{name}".lstrip(".")
        for where, module in model.named_modules()
        for name in getattr(module, "keep_float32", ())
    }
    seen: set[str] = set()

    def effect(parameter: nn.Parameter, values: Tensor) -> float:
        before = parameter.clone()
        parameter.copy_(values)
        found = (model(idx).logits - logits_BTV).norm().item()
        parameter.copy_(before)
        return found

    for (name, parameter), new in zip(model.named_parameters(), other.parameters(), strict=True):
        kind = re.sub(r"\d+", "", name)  # in one layer of each kind
        if id(parameter) not in vectors or name in kept or kind in seen or parameter.ndim == 0:
            continue
        seen.add(kind)
        rounded = parameter.bfloat16().double()
        if torch.equal(rounded, parameter):
            continue
        lost, whole = effect(parameter, rounded), max(effect(parameter, x) for x in (new, parameter.roll(1, 0)))
        if lost > LOST * whole > 0:
            raise Fault(
                f"rounding {name} to bfloat16 changes logits by {lost / whole:.0%} of what other initial values do; "
                "look at values close to 1, such as decays: name the parameter in keep_float32, or learn its logarithm"
            )


def large_weights(subject: Subject) -> str:
    """Checks that logits stay finite when all matrices are scaled by 10, and by 30 and 1000 in float64.

    Typical faults: exponentials without subtracting the maximum, a state that is not normalized.
    """
    idx = subject.tokens(2, min(subject.context, 12))
    for scale, dtype in ((10, torch.float32), (10, torch.float64), (30, torch.float64), (1000, torch.float64)):
        model = subject.model().to(dtype)
        with torch.no_grad():
            for group in model.parameter_groups(0.0):
                if group["role"] not in ("vector", "constant"):  # training changes no constant
                    for parameter in group["params"]:
                        parameter.mul_(scale)
            logits_BTV = model(idx).logits
        if not torch.isfinite(logits_BTV).all():
            raise Fault(
                f"with matrices {scale} times as large, logits are not finite in {dtype}; look at exponentials: "
                "subtract the running maximum before exp()"
            )
    return "finite with matrices 10 times as large, and 30 and 1000 times in float64"
