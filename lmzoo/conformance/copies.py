"""Checks copies for fast decoding, which have weights in bfloat16 or int8."""

from __future__ import annotations

import torch

from lmzoo.conformance.choices import Choices
from lmzoo.conformance.decoding import decode_chunks
from lmzoo.conformance.lengths import depends_on_length
from lmzoo.conformance.measure import require_near
from lmzoo.conformance.report import Fault, described, raised_at
from lmzoo.conformance.tiny import Subject
from lmzoo.inference import FORMS, decoding_copy

LOOK = "the forward() of classes derived from nn.Linear, and code that reads `weight` of another layer"


def decoding_copies(subject: Subject) -> str:
    """Checks that copies with weights in smaller formats decode, with logits close to the model's.

    The copy of a model with chooses=True in traits is made to take the entries that the model takes.
    """
    seen: list[float] = []
    for form in (subject, *subject.varied()):
        model = form.model()
        idx, steps = form.tokens(2, form.context), min(6, form.context - 1)
        split = [form.context - steps, *[1] * steps]
        choices = Choices(model)
        in_steps = choices.declared or depends_on_length(model)
        with choices.recorded(), torch.no_grad():
            expected_BTV = decode_chunks(model, idx, split) if in_steps else model(idx).logits
        for weights in FORMS:
            fast = decoding_copy(model, weights)
            what = (
                f"{form.name}: a copy with {weights} weights" if form.is_variant else f"a copy with {weights} weights"
            )
            try:
                with choices.repeated(what, chunks=len(split)):
                    found_BTV = decode_chunks(fast, idx, split)
            except Fault:
                raise
            except Exception as error:
                raise Fault(f"{what} raised {described(error)}{raised_at(error)}; look at {LOOK}") from error
            seen.append(require_near(found_BTV, expected_BTV, what, f"{LOOK}{choices.hint}"))
    return f"{' and '.join(FORMS)} weights: off by {max(seen):.2g} of the largest logit at most positions"
