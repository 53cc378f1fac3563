"""Finds masks that add a finite number to scores: weights are made so large that scores exceed such a number.

A score that is masked by -1e4, or by the least number of float16, has a weight of zero only while the other scores are
near zero. Scores grow in training, and the mask becomes weak where the checks at usual weights see nothing.
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

SCALE = 1000.0  # of the weights: queries and keys grow by it, so scores grow from about 1 to 1e6
CHANGE = 1e-3  # of the largest logit. Rounding gives less than 1e-7, a weak mask about 1
TOO_LARGE = 1e14  # logits of a model without norms: their size grows with each layer, and nothing is known of scores
LONG = 200  # tokens, from which on one text and one cut are enough: the large form has more layers and heads
ROWS = 4  # a masked number wins only where all visible scores are below it, as is likely for the first positions
NOT_FINITE = "divisors that may be zero, and a running maximum: it begins below all scores, as at -1e38, not at 0"
LOOK = "a mask that is a finite number, such as -1e4: use -inf, or torch.finfo(dtype).min"
# Norms hide large matrices from what follows, and norms of queries and keys hide them from scores: so their weights,
# which are vectors, are made larger, too. Not both at once: then scores would exceed any number.
ROLES = ("matrices", "vectors")


def large_form(subject: Subject, which: str) -> LanguageModel:
    """Returns the float64 model in eval mode, with matrices (and tables), or vectors, `SCALE` times as large."""
    model = subject.model().double()
    with torch.no_grad():
        for group in model.parameter_groups(0.0):
            if group["role"] != "constant" and (group["role"] == "vector") == (which == "vectors"):
                for parameter in group["params"]:
                    parameter.mul_(SCALE)
    return model


@torch.no_grad()
def require_causal(subject: Subject, *, brief: bool = False) -> None:
    """Raises `Fault` if logits depend on later tokens as soon as weights are large; `brief` tries it in one way."""
    T = subject.context
    cuts = sorted(({2} if brief else {1, 2, T // 2}) & {*range(1, T)})
    idx, other = _two_texts(subject, T, rows=1 if T > LONG else ROWS)
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
    """Raises `Fault` if a prefill in two chunks differs from `forward` as soon as weights are large."""
    T = subject.context
    idx = subject.tokens(ROWS, T)
    model = large_form(subject, ROLES[0])
    expected_BTV = expected_logits(subject, model, idx)
    if not _is_usable(expected_BTV):
        return
    state, end = model.init_state(ROWS, T), 0
    for n in (1, T - 1):  # few visible scores in the second chunk: all of them may be low
        start, end = end, end + n
        found_BTV, state = model.decode_all(idx[:, start:end], state)
        what = f"with matrices {SCALE:g} times as large, a chunk of {n} tokens after {start} earlier ones"
        _require_same(found_BTV, expected_BTV[:, start:end], f"{what} differs from forward (at {{}} of the chunk)")


@torch.no_grad()
def require_window(subject: Subject, reach: int, T: int) -> None:
    """Raises `Fault` if logits depend on tokens beyond `reach` as soon as weights are large."""
    idx, other = _two_texts(subject, T)
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
    """Yields models with large weights, the mode to try them in, and words for the weights."""
    for which in roles:
        model = large_form(subject, which)
        for mode in modes[:1] if _is_random(subject) else modes:
            yield model, mode, f"with {which} {SCALE:g} times as large"


def _is_random(subject: Subject) -> bool:
    """True if train mode draws random numbers, declared or not: two rows of one text then differ, as by a weak mask."""
    model = subject.model()
    if model.traits.random_in_training:
        return True
    row, several = subject.tokens(1, min(subject.context, 8)), 16
    logits_BTV = model.train()(row.expand(several, -1).contiguous()).logits
    return not torch.allclose(logits_BTV, logits_BTV[:1].expand_as(logits_BTV), rtol=1e-3, atol=1e-3)


def _two_texts(subject: Subject, T: int, rows: int = ROWS) -> tuple[Tensor, Tensor]:
    """Returns two batches of tokens (rows, T) that differ at every position."""
    V = subject.config.vocab_size
    idx = subject.tokens(rows, T)
    return idx, (idx + 1 + subject.tokens(rows, T, seed=1) % (V - 1)) % V


def _is_usable(logits_BTV: Tensor) -> bool:
    """False for NaN, and for logits that say nothing; `large_weights` checks what a model must survive."""
    return bool(logits_BTV.abs().max() < TOO_LARGE)


def _require_same(found_BTV: Tensor, expected_BTV: Tensor, what: str) -> None:
    off = ((found_BTV - expected_BTV).abs().max() / expected_BTV.abs().max().clamp(min=1)).item()
    if off <= CHANGE:
        return
    what = what.format(first_position(found_BTV, expected_BTV, CHANGE))
    if not math.isfinite(off):
        raise Fault(f"{what}: a number is not finite; look at {NOT_FINITE}")
    raise Fault(f"{what} by {off:.2g}; look at {LOOK}")
