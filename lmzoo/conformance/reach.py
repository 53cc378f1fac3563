"""Checks of how far back logits and gradients reach, at lengths that the tiny form does not have."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lmzoo import losses
from lmzoo.conformance.choices import Choices
from lmzoo.conformance.clones import clone
from lmzoo.conformance.gradients import embedding_gradients
from lmzoo.conformance.measure import FLOAT64_ROUNDING, STRAIGHT_THROUGH, backward, difference, float32_hint
from lmzoo.conformance.report import Fault
from lmzoo.conformance.tiny import Subject
from lmzoo.model import LanguageModel
from lmzoo.ops.straight_through import smooth

STEPS = (1e-5, 1e-6, 1e-7, 1e-8)  # of finite differences
ROUNDED = 1e-12  # of the largest gradient: an FFT spreads rounding of float64, about 1e-16, over the whole text
EDGE, NOISE = 1e-9, 1e-14  # of the largest gradient: just within a fixed reach, and beyond it
REGION = 16  # tokens: in each region of the past at least one must have an effect
CHUNK_LOOK = "the ends of chunks and blocks (64, 128, 256): carries, decays, masks, the last chunk"


def long_gradients(subject: Subject) -> str:
    """Checks on the large form how far back gradients reach, and the gradient of all parameters together, in float64.

    The gradient of the parameters is taken in train mode, so that a tensor that is detached only there is found too.
    Typical faults: a backward pass that stops at the end of a chunk, a receptive field declared too large or too small.
    """
    form = subject.large()[0]
    model = form.model().double()
    T = form.context
    reached = require_reach(model, form.tokens(5, T))
    off = directional_error(model, form.tokens(2, T), form.tokens(2, T, seed=1))
    return f"{reached}; the gradient agrees with a finite difference to {off:.1g}"


def require_reach(model: LanguageModel, idx: Tensor) -> str:
    """Checks the declared receptive field by gradients of the last logits with respect to the embeddings of `idx`.

    In row r the logits at the r-th position from the end are taken. Of each region of the past, one token must have an
    effect in one row: which tokens have an effect may depend on the position and on the text. Returns a summary.
    """
    rows, T = idx.shape
    declared = model.traits.receptive_field
    reach = T if declared is None else min(declared, T)
    sizes_RT = _gradients_by_distance(model, idx)
    if sizes_RT is None:  # comparing logits is no substitute: an effect over 100 tokens may be less than rounding
        return "no embedding lookup of the tokens to take gradients of; `receptive_field` checks values"
    says = "declares no receptive_field" if declared is None else f"declares receptive_field={declared}"
    beyond = (sizes_RT[:, reach:] > ROUNDED).any(0).nonzero().flatten().tolist()
    if beyond:
        raise Fault(
            f"the gradient of the logits reaches {reach + beyond[0]} tokens back, though the model {says} "
            "(the present token included); look at the window, at `reach`, or at traits"
        )
    matters_T = (sizes_RT > 0).any(0)
    regions = [(start, min(start + REGION, reach)) for start in range(0, reach, REGION)]
    if declared is not None and declared <= T - rows:
        regions.append((reach - 1, reach))  # the farthest token decides whether the declared number is too large
    for start, end in regions:
        if matters_T[start:end].any() or _values_depend(model, idx, range(start, min(end, T - rows + 1))):
            continue
        if declared is None or not _matters_anywhere(model, idx, start, end):
            raise Fault(
                f"the logits at {T - rows} to {T - 1} do not depend on the tokens {start} to {end - 1} back, though "
                f"the model {says}; look at {CHUNK_LOOK}, at detached tensors, or at traits"
            )
    return f"gradients reach {reach} tokens back" + ("" if declared is None else ", and no further")


def _gradients_by_distance(model: LanguageModel, idx: Tensor) -> Tensor | None:
    """Returns the sizes of gradients (rows, T): of the logits at the r-th last position, by the distance of the token.

    They are relative to the largest one of the row. None if the model looks up no embeddings of `idx`.
    """
    rows, T = idx.shape
    sizes_RT = torch.zeros(rows, T, dtype=model.dtype)
    weights_V = torch.linspace(-1, 1, model.config.vocab_size, dtype=model.dtype)

    def output(logits_BTV: Tensor) -> Tensor:
        return (torch.stack([logits_BTV[r, T - 1 - r] for r in range(rows)]) @ weights_V).sum()

    gradients = embedding_gradients(model, idx, output)
    if not gradients:
        return None
    for gradient in gradients:
        size_BT = gradient.abs().amax(2)
        size_BT = size_BT / size_BT.amax(1, keepdim=True).clamp(min=torch.finfo(size_BT.dtype).tiny)
        for r in range(rows):
            sizes_RT[r, : T - r] = torch.maximum(sizes_RT[r, : T - r], size_BT[r, : T - r].flip(0))
    return sizes_RT


def require_no_fixed_reach(model: LanguageModel, texts: Sequence[Tensor], least: int) -> None:
    """Raises `Fault` if the last logits of each text depend on the same number of tokens, fewer than the text has.

    A memory fades, and where a look-up or a separator ends the past depends on the text and on the position. A fixed
    reach ends at once: gradients fall from more than `EDGE` to zero, or to the rounding errors of an FFT, and tokens
    before have no effect on values either. Reaches of up to `least` tokens are left out. `texts` has several rows of
    token ids (B, T) for each of several lengths T.
    """
    found = {_fixed_reach(model, idx) for idx in texts}
    reach = found.pop()
    if found or reach is None or reach <= least or any(_depends_beyond(model, idx, reach) for idx in texts):
        return
    lengths = " and ".join(str(idx.shape[1]) for idx in texts)
    raise Fault(
        f"logits depend on {reach} tokens, the present one included, in texts of {lengths} tokens, though the model "
        "declares no receptive_field; look at the length of filters, or at `reach`"
    )


def _fixed_reach(model: LanguageModel, idx: Tensor) -> int | None:
    """Returns the number of tokens at which the gradients of all rows end at once; None if they do not."""
    sizes_RT = _gradients_by_distance(model, idx)
    if sizes_RT is None or not (sizes_RT[0] > ROUNDED).any():
        return None
    last = int((sizes_RT[0] > ROUNDED).nonzero().max())
    at_once = (sizes_RT[:, last] > EDGE).all() and (sizes_RT[:, last + 1 :] < NOISE).all()
    return last + 1 if at_once and last < idx.shape[1] - len(idx) - REGION else None


@torch.no_grad()
def _depends_beyond(model: LanguageModel, idx: Tensor, reach: int) -> bool:
    """True if replacing the tokens before the last `reach` ones of each row changes its last logits."""
    changed = idx.clone()
    changed[:, : idx.shape[1] - reach] = (changed[:, : idx.shape[1] - reach] + 1) % model.config.vocab_size
    return difference(model(changed).logits[:, -1], model(idx).logits[:, -1]) > FLOAT64_ROUNDING


def _matters_anywhere(model: LanguageModel, idx: Tensor, start: int, end: int) -> bool:
    """True if a token that is `start` to `end - 1` back has an effect on one of the last `end` positions.

    With blocks, which tokens have an effect depends on where in a block the position lies.
    """
    sizes_RT = _gradients_by_distance(model, idx[:1].repeat(min(end, idx.shape[1]), 1))
    return sizes_RT is not None and bool((sizes_RT[:, start:end] > 0).any())


def _values_depend(model: LanguageModel, idx: Tensor, distances: range) -> bool:
    """True if replacing tokens at these distances changes logits. Needed for hard choices, which have no gradient.

    Tokens are replaced by random ones, and by the last token, since a model may look for earlier copies of it.
    """
    rows, T = idx.shape
    V = model.config.vocab_size
    ends = torch.arange(T - rows, T).flip(0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for attempt in range(4):
            changed = idx.clone()
            for r, end in enumerate(ends.tolist()):
                for distance in distances if attempt < 2 else distances[attempt % 2 :: 3]:
                    last = int(idx[r, end])
                    random = int(torch.randint(V, (), generator=generator))
                    changed[r, end - distance] = random if attempt < 2 else last
            effect_BT = (model(changed).logits - model(idx).logits).abs().amax(-1)
            if any(effect_BT[r, end] > 0 for r, end in enumerate(ends.tolist())):
                return True
    return False


def directional_error(model: LanguageModel, idx: Tensor, targets: Tensor) -> float:
    """Returns the relative error of the gradient along a random direction of all parameters; raises `Fault` if large.

    The gradient is taken in train mode, without auxiliary losses. It may differ from the slope of the loss on purpose
    (a straight-through estimator): then the gradient of eval mode is compared, and the one of train mode must reach as
    far back. Finite differences of several lengths are tried, because a step may cross a kink, such as the one of ReLU,
    or change a router's choice. A model with chooses=True in traits keeps its choices within a step.
    """
    choices = Choices(model)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        directions = []
        for p in model.parameters():
            direction = torch.randn(p.shape, generator=generator, dtype=p.dtype)
            directions.append(direction * (p.abs().mean().clamp(min=1e-3)))

    def gradient_of(which: LanguageModel) -> float:
        with choices.recorded(), smooth():
            loss = losses.cross_entropy(which(idx).logits, targets)
        backward(loss)
        pairs = zip(which.parameters(), directions, strict=True)
        return sum(float((p.grad * d).sum()) for p, d in pairs if p.grad is not None)

    def error(slope: float) -> float:
        return abs(slope - gradient) / max(abs(slope), abs(gradient), 1e-3)

    trained = model if model.traits.random_in_training else clone(model).train()  # a clone: it may count its choices
    gradient = gradient_of(trained)
    pairs = [pair for pair in zip(model.parameters(), directions, strict=True) if pair[0].requires_grad]
    slopes = list[float]()
    for step in STEPS:
        values = []
        with torch.no_grad():
            for sign in (1, -2, 1):  # to + step, to - step, and back to the start
                for p, d in pairs:
                    p.add_(d, alpha=sign * step)
                with choices.repeated("a step of a finite difference"), smooth():
                    values.append(model(idx, targets).loss.item())
        slopes.append((values[0] - values[1]) / (2 * step))
        if error(slopes[-1]) <= 1e-3:
            return error(slopes[-1])
    if trained is not model:
        gradient = gradient_of(model)
        if min(map(error, slopes)) <= 1e-3:
            _require_same_reach(model, trained, idx)
    if not min(map(error, slopes)) <= 1e-3:
        raise Fault(
            f"the gradient along a random direction is {gradient:.6g}, the finite difference of the loss "
            f"{slopes[-1]:.6g}, at {idx.shape[1]} tokens; look at hand-written backward passes, detached tensors"
            f"{STRAIGHT_THROUGH}, {CHUNK_LOOK}{choices.hint}{float32_hint(lambda: model(idx))}"
        )
    return min(map(error, slopes))


def _require_same_reach(model: LanguageModel, trained: LanguageModel, idx: Tensor) -> None:
    """Raises `Fault` if gradients in train mode do not reach tokens that they reach in eval mode."""
    seen_RT, found_RT = _gradients_by_distance(model, idx), _gradients_by_distance(trained, idx)
    if seen_RT is None or found_RT is None:
        return
    lost = ((seen_RT > 0) & (found_RT == 0)).any(0).nonzero().flatten().tolist()
    if lost:
        raise Fault(
            f"in train mode no gradient reaches the tokens {lost[0]} back, though gradients in eval mode do; look at "
            f"detached tensors, at no_grad(), and at {CHUNK_LOOK}"
        )
