"""Checks of copies for fast decoding: with bfloat16 and int8 weights."""

from __future__ import annotations

import torch
from torch import Tensor

from lmzoo.conformance.measure import require_near
from lmzoo.conformance.report import Fault
from lmzoo.conformance.tiny import Subject
from lmzoo.inference import FORMS, decoding_copy

LOOK = "the forward() of classes derived from nn.Linear, and code that reads `weight` of another layer"


def decoding_copies(subject: Subject) -> str:
    """Checks that copies with weights in smaller formats decode, with logits close to those of the model."""
    seen: list[float] = []
    for form in (subject, *subject.varied()):
        model = form.model()
        idx, steps = form.tokens(2, form.context), min(6, form.context - 1)
        with torch.no_grad():
            expected_BTV = model(idx).logits
        for weights in FORMS:
            fast = decoding_copy(model, weights)
            what = (
                f"{form.name}: a copy with {weights} weights" if form.is_variant else f"a copy with {weights} weights"
            )
            try:
                state, logits = fast.init_state(2, form.context), list[Tensor]()
                for chunk in idx.split([form.context - steps, *[1] * steps], dim=1):
                    found_BTV, state = fast.decode_all(chunk, state)
                    logits.append(found_BTV)
            except Exception as error:
                first = (str(error).splitlines() or [""])[0]
                raise Fault(f"{what} raised {type(error).__name__}: {first}; look at {LOOK}") from error
            seen.append(require_near(torch.cat(logits, dim=1), expected_BTV, what, LOOK))
    return f"{' and '.join(FORMS)} weights: off by {max(seen):.2g} of the largest logit at most positions"
