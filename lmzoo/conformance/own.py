"""Checks of the caller's own model, with its weights and sizes, on a few short sequences.

All other checks look at small models of the same class. So only these checks see a layer that was changed after
construction.
"""

from __future__ import annotations

import torch

from lmzoo.conformance.causality import LEAK
from lmzoo.conformance.clones import clone
from lmzoo.conformance.decoding import LOOK, check_split
from lmzoo.conformance.lengths import expected_logits
from lmzoo.conformance.measure import FLOAT64_ROUNDING, NOT_FINITE, difference, float32_hint
from lmzoo.conformance.reach import require_reach
from lmzoo.conformance.report import Fault
from lmzoo.conformance.tiny import Subject
from lmzoo.model import LanguageModel

TOKENS = 16  # few, because the model may be large
FAR = 64  # tokens for the receptive field


def own_causality(subject: Subject) -> str:
    """Checks on the caller's own model that logits do not depend on later tokens, and are finite."""
    model = _own(subject)
    T = min(model.config.context_length, TOKENS)
    row, other = subject.own_tokens(1, T), subject.own_tokens(1, T, seed=1)
    cuts = sorted({T - 1, T // 2, 2, 1} & {*range(1, T)})
    idx = torch.cat([row, *(torch.cat([row[:, :cut], other[:, cut:]], dim=1) for cut in cuts)])
    with torch.no_grad():
        logits_BTV = model(idx).logits
    if not torch.isfinite(logits_BTV).all():
        raise Fault(f"your own model gives logits that are not finite; look at its weights, and at {NOT_FINITE}")
    for r, cut in enumerate(cuts, start=1):
        off = difference(logits_BTV[r, :cut], logits_BTV[0, :cut])
        if not off <= FLOAT64_ROUNDING:
            hint = float32_hint(lambda: model(row), off)
            raise Fault(
                f"changing the tokens of your own model from position {cut} of {T} on changes earlier logits by "
                f"{off:.2g}; look at {LEAK}{hint}"
            )
    return f"your own model, {model.num_params():,} parameters: {len(cuts)} cuts of {T} tokens"


def own_decoding(subject: Subject) -> str:
    """Checks on the caller's own model that decoding gives the logits of `forward`."""
    model = _own(subject)
    T = min(model.config.context_length, TOKENS)
    idx = subject.own_tokens(2, T)
    expected_BTV = expected_logits(subject, model, idx)
    splits = ([T], [1] * T, [T - T // 3, T // 3]) if T > 2 else ([T],)
    worst = max(check_split(model, idx, expected_BTV, list(split), f"your own model: {LOOK}") for split in splits)
    return f"your own model, {len(splits)} splits of {T} tokens: off by at most {worst:.1g}"


def own_receptive_field(subject: Subject) -> str:
    """Checks on the caller's own model that the last logits depend on as many tokens as it declares."""
    model = _own(subject)
    T = min(model.config.context_length, FAR)
    return f"your own model, {T} tokens: {require_reach(model, subject.own_tokens(min(8, T), T))}"


def _own(subject: Subject) -> LanguageModel:
    """Returns a copy of the caller's model in float64."""
    assert subject.own is not None
    return clone(subject.own).double()
