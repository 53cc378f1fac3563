"""Checks that logits do not depend on later positions.

A *cut* is the position from which on tokens are changed or left out.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from lmzoo.conformance import masks
from lmzoo.conformance.clones import clone
from lmzoo.conformance.gradients import embedding_gradients
from lmzoo.conformance.lengths import comparable, require_changes
from lmzoo.conformance.measure import (
    FLOAT64_ROUNDING,
    NOT_FINITE,
    ROUNDING,
    difference,
    first_position,
    float32_hint,
    in_bfloat16,
)
from lmzoo.conformance.report import Fault
from lmzoo.conformance.tiny import Subject
from lmzoo.model import LanguageModel

LEAK = "what mixes positions: a mask, a padding, a norm or a mean over time, a router"
# Where to look if changing later tokens has no effect, but leaving them out has one.
LENGTH_LEAK = (
    "what depends on the number of tokens: a branch for T = 1, rounds of a scan, capacities, a maximum over all, "
    "rounds until all positions have converged, positions without `same_until`"
)
ROWS_LOOK = "look at what mixes rows: a norm, a sum or a maximum over the batch, slices of rows, a capacity of experts"
REPEATS = 8  # of a pass that may draw random numbers: a single repetition may be equal by chance
BFLOAT16_LEAK = "the code that runs in bfloat16 alone: a kernel, a cast"
ROWS_FACTOR = 4  # times the noise from other rows of the batch, of which only three draws are measured
BFLOAT16_STEP = 2**-6  # of the largest logit: the most that one value of bfloat16, rounded the other way, changes


def lengths(subject: Subject, model: LanguageModel) -> list[int]:
    """Returns the sequence lengths to check: the context and, if the model extrapolates, more than two scan chunks.

    For a variant only the context, to save time: the large form is longer anyway.
    """
    longer = model.traits.extrapolates and not subject.is_variant
    return [subject.context, 2 * subject.context + 3] if longer else [subject.context]


def causality(subject: Subject) -> str:
    """Checks that logits stay the same when later tokens change or are left out, in eval and train mode, in float64.

    Weights 1000 times as large are tried too, because their scores exceed a mask of -1e4.
    """
    model = subject.model().double()
    tried = lengths(subject, model)
    for T in tried:
        idx, other = subject.two_texts(2, T)
        cuts = range(T - 1, 0, -1)
        # One batch has a row for each cut, since `batch_independence` checks that rows do not depend on each other.
        batch = torch.cat([idx, *_changed(idx[:1], other[:1], cuts)])
        all_BTV = _logits(model, batch)
        logits_BTV = all_BTV[: len(idx)]
        for cut, changed_TV in zip(cuts, all_BTV[len(idx) :], strict=True):
            _require_unchanged(model, batch, cut, changed_TV[None], logits_BTV[:1], "in eval mode, changing")
        shorter = _shorter(T, subject.context)
        for cut in (cut for cut in shorter if comparable(model, cut, T)):
            _require_unchanged(model, idx, cut, _logits(model, idx[:, :cut]), logits_BTV, "leaving out")
        changing = [cut for cut in shorter if not comparable(model, cut, T)]
        if changing and tried[-1] == T:
            require_changes(model, idx, logits_BTV, changing)
    _require_causal_in_float32(subject, tried)
    for calm in subject.calm():
        idx = subject.tokens(1, subject.context)
        cut = subject.context // 2
        if not comparable(calm, cut, subject.context):
            continue
        quiet = torch.cat([idx[:, :1].expand(1, cut), idx[:, cut:]], dim=1)
        _require_unchanged(calm, quiet, cut, _logits(calm, quiet[:, :cut]), _logits(calm, quiet), "leaving out")
    model = subject.model(dropout=0.1).double().train()
    for T in tried:
        idx, other = subject.two_texts(2, T)
        logits_BTV = _logits(model, idx)
        cuts = _some_cuts(T)  # each in its own batch: the rows of one batch differ in their dropout noise
        for cut, changed_idx in zip(cuts, _changed(idx, other, cuts), strict=True):
            changed_BTV = _logits(model, changed_idx)
            _require_unchanged(model, idx, cut, changed_BTV, logits_BTV, "in train mode, changing")
    masks.require_causal(subject, brief=subject.is_variant)
    return f"every cut of T = {tried}, eval and train: unchanged before the cut, in float64"


def _require_causal_in_float32(subject: Subject, lengths: Iterable[int]) -> None:
    """Raises `Fault` for a leak in code that runs only in float32, such as a fused kernel."""
    model = subject.model()
    for T in lengths:
        idx, other = subject.two_texts(2, T)
        cuts = _some_cuts(T)
        first_TV, *changed = _logits(model, torch.cat([idx[:1], *_changed(idx[:1], other[:1], cuts)]))
        for cut, changed_TV in zip(cuts, changed, strict=True):
            off = difference(changed_TV[:cut], first_TV[:cut])
            if not off <= ROUNDING:
                raise Fault(
                    f"in float32, and not in float64, changing the tokens from position {cut} of {T} on changes "
                    f"earlier logits by {off:.2g}; look at {LEAK}, in the code that runs in float32 alone"
                )


def bfloat16_causality(subject: Subject) -> str:
    """Checks that logits do not depend on later tokens under autocast to bfloat16, where training uses other kernels.

    The logits before a cut must be bitwise equal, with two exceptions for rounding. First, an FFT carries rounding
    errors of later tokens back: so a value may be rounded the other way at two of the five cuts, and at all cuts if
    float32 shows such errors too. Second, when an expert computes a different number of rows, all of its values may be
    rounded differently: if other rows of the batch change the logits of a row, a change of four times that size is
    allowed, at the median position.
    """
    model = subject.model(dropout=0.1).train()
    seen = set()
    for T in lengths(subject, model):
        idx, other = subject.two_texts(2, T)
        cuts = _some_cuts(T)
        logits_BTV = _logits(model, idx, autocast=True)
        found = [_logits(model, changed, autocast=True) for changed in _changed(idx, other, cuts)]
        offs = [_offs(x[:, :cut], logits_BTV[:, :cut]) for cut, x in zip(cuts, found, strict=True)]
        moved = [off_BT.max().item() for off_BT in offs]
        noise = _noise_of_rows(subject, model, idx, logits_BTV) if any(moved) else None
        if noise is None:
            many = 2 * sum(off > 0 for off in moved) > len(cuts)
            wrong = max(moved, default=0.0) > BFLOAT16_STEP or (many and not _rounds_back(subject, model, T))
            seen.add("equal up to rounding" if any(moved) else "bitwise equal")
        else:
            moved = [off_BT.median().item() for off_BT in offs]
            wrong = 2 * sum(off > max(ROWS_FACTOR * noise, BFLOAT16_STEP) for off in moved) > len(cuts)
            seen.add("no more changed than by other rows of the batch")
        if wrong:
            off, cut = max(zip(moved, cuts, strict=True))
            raise Fault(
                f"under autocast to bfloat16, changing the tokens from position {cut} of {T} on changes earlier logits "
                f"by {off:.2g} of the largest value ({sum(off > 0 for off in moved)} of {len(cuts)} cuts change some); "
                f"look at {BFLOAT16_LEAK}"
            )
    return f"T = {lengths(subject, model)} under autocast: {' and '.join(sorted(seen))} before 5 cuts"


def gradient_causality(subject: Subject) -> str:
    """Checks that no gradient flows from a logit to the embedding of a later token, also where values hide a leak."""
    model = subject.model().double()
    T = lengths(subject, model)[-1]
    idx = subject.tokens(1, T).repeat(T - 1, 1)  # row t is for the gradient of the logits at position t
    weights_V1 = torch.linspace(-1, 1, subject.config.vocab_size, dtype=torch.float64)[:, None]
    gradients = embedding_gradients(model, idx, lambda logits: (logits.diagonal(dim1=0, dim2=1) * weights_V1).sum())
    if not gradients:
        return "the model has no embedding lookup to take gradients of; `causality` checks its values"
    for gradient in gradients:
        size_BT = gradient.abs().amax(2)
        if not size_BT.isfinite().all():
            raise Fault(
                f"the gradient of the logits with respect to the embeddings is not finite; look at {NOT_FINITE}"
            )
        later_BT = torch.arange(T) > torch.arange(T - 1)[:, None]
        leaks_BT = later_BT & ~(size_BT <= FLOAT64_ROUNDING * size_BT.amax(1, keepdim=True))
        if leaks_BT.any():
            t, later = leaks_BT.nonzero()[0].tolist()
            off = size_BT[t, later].item()
            hint = float32_hint(lambda: model(idx), off / size_BT[t].max().item())
            raise Fault(
                f"the gradient of the logits at position {t} with respect to the token at position {later} is "
                f"{off:.2g}; look at {LEAK}{hint}"
            )
    return f"gradients of {T - 1} positions to later tokens are zero, in float64"


def _changed(idx: Tensor, other: Tensor, cuts: Iterable[int]) -> list[Tensor]:
    """Returns, for each cut, `idx` before the cut and `other` from there on."""
    return [torch.cat([idx[:, :cut], other[:, cut:]], dim=1) for cut in cuts]


def _some_cuts(T: int) -> list[int]:
    """Returns five cuts, or as many as T allows, the latest first."""
    return sorted({T - 1, T - 2, T // 2, 2, 1} & {*range(1, T)}, reverse=True)


def _shorter(T: int, context: int) -> list[int]:
    """Returns shorter lengths than T: the largest, the smallest, and some around the ends of chunks."""
    within = {1, 2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 17} if context >= T else {context + 1, 31, 32, 33}
    return sorted({T - 1, T - 2, *within} & {*range(1, T)}, reverse=True)


def _logits(model: LanguageModel, idx: Tensor, *, autocast: bool = False, seed: int = 0) -> Tensor:
    """Returns logits, with dropout noise that depends on the seed only; in train mode with gradients, as in training.

    In train mode a copy of the model computes them, since a model may count in a buffer how often it chose each expert.
    """
    model = clone(model) if model.training else model
    with torch.random.fork_rng(devices=[]), torch.set_grad_enabled(model.training):
        torch.manual_seed(seed)
        logits_BTV = in_bfloat16(lambda: model(idx).logits) if autocast else model(idx).logits
    return logits_BTV.detach()


def _require_unchanged(
    model: LanguageModel, idx: Tensor, cut: int, actual_BTV: Tensor, expected_BTV: Tensor, how: str
) -> None:
    """Raises `Fault` if logits before the cut differ; `how` says what was done to the tokens from there on."""
    actual_BTV, expected_BTV = actual_BTV[:, :cut], expected_BTV[:, :cut]
    off = difference(actual_BTV, expected_BTV)
    if not off <= FLOAT64_ROUNDING:
        require_no_other_cause(model, idx)
        position = first_position(actual_BTV, expected_BTV, FLOAT64_ROUNDING)
        raise Fault(
            f"{how} the tokens from position {cut} of {idx.shape[1]} on changes the logits at {position} by {off:.2g}; "
            f"look at {LENGTH_LEAK if how == 'leaving out' else LEAK}{float32_hint(lambda: model(idx), off)}"
        )


def require_no_other_cause(model: LanguageModel, idx: Tensor, *, drops: bool = True) -> None:
    """Raises `Fault` if the logits of `idx` change for another reason than later tokens, which only looks like a leak.

    Called for a model that has failed. Other reasons are values that are not finite, two passes that differ, and rows
    that depend on each other. `drops` is False if no dropout rate is set: then train mode must draw no random numbers,
    unless the model declares them.
    """
    size = f"for {len(idx)} rows of {idx.shape[1]} tokens"
    logits_BTV = _logits(model, idx)
    if not torch.isfinite(logits_BTV).all():
        raise Fault(f"{size} logits are not finite; look at {NOT_FINITE}")
    for seed in range(1, REPEATS + 1):
        off = difference(_logits(model, idx, seed=0 if model.training else seed), logits_BTV)
        if off:
            mode = "in train mode with the same seed" if model.training else "in eval mode"
            raise Fault(
                f"{size} a second pass on the same tokens {mode} is off by {off:.2g}; look at dropout or noise in eval "
                "mode, state kept on the module, and random numbers that torch does not draw"
            )
    if model.training and not drops and not model.traits.random_in_training:
        off = difference(_logits(model, idx, seed=1), logits_BTV)
        if off:
            raise Fault(
                f"{size} train mode without dropout gives other logits for another seed, by {off:.2g}, and traits does "
                "not say random_in_training=True; look at noise and jitter in train mode"
            )
    for row in (0, len(idx) - 1) if len(idx) > 1 and not model.training else ():
        off = difference(_logits(model, idx[row : row + 1]), logits_BTV[row : row + 1])
        if off > FLOAT64_ROUNDING:
            hint = float32_hint(lambda: model(idx), off)
            raise Fault(
                f"{size} the logits of row {row} are off by {off:.2g} from those of the row alone; {ROWS_LOOK}{hint}"
            )


def _offs(actual_BTV: Tensor, expected_BTV: Tensor) -> Tensor:
    """Returns the difference at each position relative to the largest value, (B, T); infinite where not finite."""
    off_BT = (actual_BTV.float() - expected_BTV.float()).abs().amax(-1) / expected_BTV.float().abs().max().clamp(min=1)
    return off_BT.nan_to_num(nan=torch.inf)


def _rounds_back(subject: Subject, model: LanguageModel, T: int) -> bool:
    """True if rounding errors of later tokens reach earlier logits without autocast too, as with an FFT."""
    idx, other = subject.two_texts(2, T)
    cut = T // 2
    off = difference(_logits(model, _changed(idx, other, [cut])[0])[:, :cut], _logits(model, idx)[:, :cut])
    return 0 < off <= 1e-5


def _noise_of_rows(subject: Subject, model: LanguageModel, idx: Tensor, logits_BTV: Tensor) -> float | None:
    """Returns the change of row 0 when row 1 changes: the largest of three draws, each at the median position.

    None if no bit of row 0 changes.
    """
    changes = []
    for seed in range(2, 5):
        neighbor = torch.cat([idx[:1], subject.tokens(2, idx.shape[1], seed=seed)[1:]])
        changes.append(_offs(_logits(model, neighbor, autocast=True)[:1], logits_BTV[:1]))
    if not any(off_BT.any() for off_BT in changes):
        return None
    return max(off_BT.median().item() for off_BT in changes)
