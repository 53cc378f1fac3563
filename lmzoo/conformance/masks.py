"""Finds masks that set or add a finite number: weights are made so large that scores exceed such a number.

A score that is masked by -1e4, or by the least number of float16, has a weight of zero only while the other scores are
near zero. Scores grow in training, so that later the mask is too weak. Checks with usual weights do not see this.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from lmzoo.conformance.lengths import expected_logits
from lmzoo.conformance.measure import first_position
from lmzoo.conformance.report import Fault
from lmzoo.conformance.tiny import Subject
from lmzoo.model import LanguageModel

SCALE = 1000.0  # of the weights: queries and keys grow by this factor, so scores grow from about 1 to 1e6
CHANGE = 1e-3  # of the largest logit. Rounding gives less than 1e-7, a weak mask about 1
TOO_LARGE = 1e14  # logits of a model without norms, which grow with each layer: they say nothing about its scores
LONG = 200  # tokens: of a longer text one row is enough, because the large form has more layers and heads
ROWS = 4  # texts: a mask fails only where all visible scores are below it, as is likely for the first positions
LOOK_NOT_FINITE = "divisors that may be zero, and a running maximum: it begins below all scores, as at -1e38, not at 0"
LOOK = "a mask that is a finite number, such as -1e4: use -inf, or torch.finfo(dtype).min"
# Norms of queries and keys cancel the size of matrices. So the weights of norms, which are vectors, are made larger
# too, but not both at once: then scores would exceed any number.
ROLES = ("matrices", "vectors")


def large_form(subject: Subject, which: str) -> LanguageModel:
    """Returns the float64 model in eval mode with `which` weights `SCALE` times as large: "matrices" or "vectors".

    Embeddings count as matrices; constants stay as they are.
    """
    model = subject.model().double()
    with torch.no_grad():
        for group in model.parameter_groups(0.0):
            if group["role"] != "constant" and (group["role"] == "vector") == (which == "vectors"):
                for parameter in group["params"]:
                    parameter.mul_(SCALE)
    return model


@torch.no_grad()
def require_causal(subject: Subject, *, brief: bool = False) -> None:
    """Raises `Fault` if logits depend on later tokens when weights are large; `brief` tries one way to enlarge them."""
    T = subject.context
    cuts = sorted(({2} if brief else {1, 2, T // 2}) & {*range(1, T)})
    idx, other = subject.two_texts(1 if T > LONG else ROWS, T)
    batch = torch.cat([idx, *(torch.cat([idx[:, :cut], other[:, cut:]], dim=1) for cut in cuts)])
    ways = (ROLES[:1], ("eval",)) if brief else ()
    for model, mode, how in _large_forms(subject, *ways):
        logits_BTV = model.train(mode == "train")(batch).logits
        if not _is_usable(logits_BTV):
            continue
        expected_BTV, *changed = logits_BTV.split(len(idx))
        for cut, found_BTV in zip(cuts, changed, strict=True):
            what = f"in {mode} mode, {how}, changing the tokens from position {cut} of {T} on"
            _require_same(found_BTV[:, :cut], expected_BTV[:, :cut], f"{what} changes the logits at {{}}")


@torch.no_grad()
def require_decoding(subject: Subject) -> None:
    """Raises `Fault` if a prefill in two chunks differs from `forward` when weights are large."""
    T = subject.context
    idx = subject.tokens(ROWS, T)
    model = large_form(subject, ROLES[0])
    expected_BTV = expected_logits(subject, model, idx)
    if not _is_usable(expected_BTV):
        return
    state, end = model.init_state(ROWS, T), 0
    for n in (1, T - 1):  # the second chunk begins where few scores are visible: all of them may be below the mask
        start, end = end, end + n
        found_BTV, state = model.decode_all(idx[:, start:end], state)
        what = f"with matrices {SCALE:g} times as large, a chunk of {n} tokens after {start} earlier ones"
        _require_same(found_BTV, expected_BTV[:, start:end], f"{what} differs from forward (at {{}} of the chunk)")


@torch.no_grad()
def require_window(subject: Subject, reach: int, T: int) -> None:
    """Raises `Fault` if logits depend on tokens beyond `reach` when weights are large."""
    idx, other = subject.two_texts(ROWS, T)
    counts = [n for n in (1, (T - reach) // 2) if 0 < n <= T - reach]
    batch = torch.cat([idx, *(torch.cat([other[:, :n], idx[:, n:]], dim=1) for n in counts)])
    for model, mode, how in _large_forms(subject, modes=("eval",)) if counts else ():
        logits_BTV = model.train(mode == "train")(batch).logits
        if not _is_usable(logits_BTV):
            continue
        expected_BTV, *changed = logits_BTV.split(len(idx))
        for n, found_BTV in zip(counts, changed, strict=True):
            what = f"in {mode} mode, {how}, changing the first {n} tokens changes the logits {reach} tokens later"
            start = n - 1 + reach
            _require_same(found_BTV[:, start:], expected_BTV[:, start:], f"{what} (at {{}} from there)")


def _large_forms(
    subject: Subject, roles: Sequence[str] = ROLES, modes: Sequence[str] = ("eval", "train")
) -> Iterator[tuple[LanguageModel, str, str]]:
    """Yields models with large weights, the mode to try each in, and a description of its weights for messages."""
    for which in roles:
        model = large_form(subject, which)
        for mode in modes[:1] if _is_random(subject) else modes:
            yield model, mode, f"with {which} {SCALE:g} times as large"


def _is_random(subject: Subject) -> bool:
    """True if train mode draws random numbers, declared or not: then equal rows differ without a leak."""
    model = subject.model()
    if model.traits.random_in_training:
        return True
    row, several = subject.tokens(1, min(subject.context, 8)), 16
    logits_BTV = model.train()(row.expand(several, -1).contiguous()).logits
    return not torch.allclose(logits_BTV, logits_BTV[:1].expand_as(logits_BTV), rtol=1e-3, atol=1e-3)


def _is_usable(logits_BTV: Tensor) -> bool:
    """False for NaN, and for logits that are too large: `large_weights` checks at which weights they must be finite."""
    return bool(logits_BTV.abs().max() < TOO_LARGE)


def _require_same(found_BTV: Tensor, expected_BTV: Tensor, what: str) -> None:
    """Raises `Fault` if logits differ; `{}` in `what` stands for the first position that differs."""
    off = ((found_BTV - expected_BTV).abs().max() / expected_BTV.abs().max().clamp(min=1)).item()
    if off <= CHANGE:
        return
    what = what.format(first_position(found_BTV, expected_BTV, CHANGE))
    if not math.isfinite(off):
        raise Fault(f"{what}: a number is not finite; look at {LOOK_NOT_FINITE}")
    raise Fault(f"{what} by {off:.2g}; look at {LOOK}")
