"""Are its gradients right, and does it hold in bfloat16?"""

from __future__ import annotations

import torch

from lmzoo.conformance.measure import difference, require_equal
from lmzoo.conformance.report import Fault
from lmzoo.conformance.tiny import Subject

STEP = 1e-5
DRIFT = 0.1  # of the largest logit: bfloat16 has 8 bits, and two layers add up their rounding


def float64_gradients(subject: Subject) -> str:
    """A hand-written backward pass, or an in-place change, that gives a gradient the loss does not have."""
    model = subject.model().double()
    T = min(subject.context, 19)  # past one chunk of a chunked scan
    idx, targets = subject.tokens(2, T), subject.tokens(2, T, seed=1)
    model(idx, targets).loss.backward()
    generator = torch.Generator().manual_seed(0)
    worst = 0.0
    for name, parameter in model.named_parameters():
        direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        direction /= direction.norm()
        claimed = 0.0 if parameter.grad is None else (parameter.grad * direction).sum().item()
        ends = []
        with torch.no_grad():
            for sign in (1, -2, 1):  # forth, back, and home again
                parameter.add_(direction, alpha=sign * STEP)
                ends.append(model(idx, targets).loss.item())
        measured = (ends[0] - ends[1]) / (2 * STEP)
        off = abs(measured - claimed) / max(abs(measured), abs(claimed), 1e-4)
        if off > 1e-3:
            raise Fault(
                f"the gradient of {name} is {claimed:.6g} along a random direction, the loss's slope {measured:.6g}"
            )
        worst = max(worst, off)
    return f"the slope of every parameter agrees to {worst:.1g}"


def bfloat16(subject: Subject) -> str:
    """Logits that are lost or not finite in bfloat16, under autocast, in bfloat16 weights, or decoded so."""
    model = subject.model()
    T = subject.context
    idx = subject.tokens(2, T)
    exact_BTV = model(idx).logits
    with torch.autocast("cpu", torch.bfloat16):
        cast_BTV = model(idx).logits
    require_equal(cast_BTV.float(), exact_BTV, "forward under autocast to bfloat16", "exponents and long sums", DRIFT)
    rounded = subject.model().bfloat16()
    rounded_BTV = rounded(idx).logits
    require_equal(rounded_BTV.float(), exact_BTV, "forward with bfloat16 weights", "exponents and long sums", DRIFT)
    state, drift = rounded.init_state(2, T), 0.0
    for t in range(T):
        logits_BV, state = rounded.decode(idx[:, t : t + 1], state)
        drift = require_equal(
            logits_BV.float(),
            rounded_BTV[:, t].float(),
            f"decoding in bfloat16, position {t},",
            "the state's dtype",
            DRIFT,
        )
    off = max(difference(cast_BTV.float(), exact_BTV), difference(rounded_BTV.float(), exact_BTV))
    return f"off by {off:.2g} of the largest logit, decoding by {drift:.2g}"
