"""Checks at sizes that the tiny form does not reach: about 300 tokens, 9 rows, 4 or more layers.

Chunked algorithms, block masks, caches and closed forms are often wrong only past their first chunks.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from lmzoo.conformance.causality import LEAK, Embeddings
from lmzoo.conformance.decoding import LOOK, check_all_positions
from lmzoo.conformance.measure import (
    FLOAT64_ROUNDING,
    difference,
    first_position,
    float32_hint,
    require_exact,
    require_near,
)
from lmzoo.conformance.report import Fault
from lmzoo.conformance.tiny import Subject, perturb
from lmzoo.inference.weights import cast_weights
from lmzoo.model import LanguageModel

ROWS = 9
CUTS = (299, 257, 256, 200, 128, 65, 64, 33)  # one for each row but the first
SHORTER = (257, 129, 100, 64)
GROWTH, FLAT = 4, 0.02  # by what factor, and from which size on, errors in bfloat16 must not grow along the sequence
FAR = 600  # tokens, for models that extrapolate
REGION = 16  # tokens; of each region of the past at least one token must matter
CHUNK_LOOK = "the ends of chunks and blocks (64, 128, 256): carries, decays, masks, the last chunk"


def long_causality(subject: Subject) -> str:
    """Checks on the large form that logits do not depend on later tokens or on other rows, in float64.

    Typical faults: a mask of blocks, a chunk that reads its own end, a row or a position beyond a fixed number.
    """
    T = subject.large()[0].context
    for form in subject.large():
        model = form.model().double()
        row = form.tokens(1, T)
        other = (row + 1 + form.tokens(1, T, seed=1) % (form.config.vocab_size - 1)) % form.config.vocab_size
        changed = [torch.cat([row[:, :cut], other[:, cut:]], dim=1) for cut in CUTS]
        idx = torch.cat([row, *changed])
        _require_causal(model, idx, "in eval mode")
        if not model.traits.random_in_training:
            _require_causal(_slow(form).double().train(), idx, "in train mode")
    return f"{len(CUTS)} cuts of {T} tokens in a batch of {ROWS}, {len(SHORTER)} shorter inputs: unchanged before them"


def _require_causal(model: LanguageModel, idx: Tensor, mode: str) -> None:
    """Row r + 1 of `idx` is row 0 with other tokens from CUTS[r] on."""
    fresh = copy.deepcopy  # in train mode a model may count in a buffer what it has chosen
    with torch.no_grad():
        logits_BTV = fresh(model)(idx).logits
        for r, cut in enumerate(CUTS):
            found_BTV, expected_BTV = logits_BTV[r + 1 : r + 2, :cut], logits_BTV[:1, :cut]
            _require_same(model, idx, found_BTV, expected_BTV, f"{mode}, changing the tokens from position {cut} on")
        for cut in SHORTER:
            rows = slice(0, 1) if cut % 2 else slice(7, 9)  # also the last rows, alone
            found_BTV = fresh(model)(idx[rows, :cut]).logits
            what = f"{mode}, leaving out other rows and the tokens from position {cut} on"
            _require_same(model, idx, found_BTV, logits_BTV[rows, :cut], what)


def _require_same(model: LanguageModel, idx: Tensor, found: Tensor, expected: Tensor, what: str) -> None:
    off = difference(found, expected)
    if not off <= FLOAT64_ROUNDING:
        position = first_position(found, expected, FLOAT64_ROUNDING)
        hint = float32_hint(lambda: model(idx[:1]), off)
        raise Fault(
            f"with {idx.shape[1]} tokens {what} changes the logits at {position} by {off:.2g}; look at {LEAK}, and at "
            f"{CHUNK_LOOK}{hint}"
        )


def long_decoding(subject: Subject) -> str:
    """Checks on the large form that decoding in a few splits gives the logits of `forward`, in float64."""
    worst = 0.0
    T = subject.large()[0].context
    splits: list[tuple[int, list[int]]] = [
        (ROWS, [64, 64, 1, 127, T - 256]),
        (1, [50, *[1] * 25, T - 75]),
        (2, [T]),
        (1, [T - 171, 171]),
        (1, [250, *[1] * 9, T - 259]),
    ]
    where = f"{LOOK}, {CHUNK_LOOK}"
    for i, form in enumerate(subject.large()):
        idx = form.tokens(ROWS, T)
        runs = [(form.model(), splits[:2])]
        runs += [(_slow(form), [splits[0], *splits[2:]])] if i == 0 else []
        for model, chosen in runs:
            model = model.double()
            with torch.no_grad():
                expected_BTV = model(idx).logits
            for rows, split in chosen:
                worst = max(worst, check_all_positions(model, idx[-rows:], expected_BTV[-rows:], split, where))
    model = _slow(subject.large()[0]).double()
    if model.traits.extrapolates:  # three chunks of 256: a carry may be wrong from the second one on
        idx = subject.large()[0].tokens(1, FAR)
        with torch.no_grad():
            expected_BTV = model(idx).logits
        worst = max(worst, check_all_positions(model, idx, expected_BTV, [257, FAR - 257], where))
    return f"{len(splits)} splits of {T} tokens, up to {ROWS} rows: off by at most {worst:.1g}"


def _slow(form: Subject) -> LanguageModel:
    """Returns a model close to its initial weights, with every second vector raised by 3.

    With perturbed gates a state may be forgotten within a few tokens, and a mistake in carrying it further is hidden.
    Near the initial weights decays are slow, or the gates that decide about them are saturated.
    """
    model = form.model(perturbed=False)
    perturb(model, scale=0.1)
    with torch.no_grad():
        for parameter in [parameter for parameter in model.parameters() if parameter.ndim < 2][::2]:
            parameter.add_(3)
    return model


def long_gradients(subject: Subject) -> str:
    """Checks on the large form how far back gradients reach, and the gradient of all parameters together, in float64.

    Typical faults: a backward pass that stops at the end of a chunk, a receptive field declared too large or too small.
    """
    form = subject.large()[0]
    model = form.model().double()
    T = form.context
    reached = require_reach(model, form.tokens(8, T))
    off = _directional_error(model, form.tokens(2, T), form.tokens(2, T, seed=1))
    return f"{reached}; the gradient agrees with a finite difference to {off:.1g}"


def require_reach(model: LanguageModel, idx: Tensor) -> str:
    """Checks the declared receptive field by gradients of the last logits with respect to the embeddings of `idx`.

    Row r gives the reach of the r-th position from the end. It is enough if one token of each region matters in one
    row: what matters may depend on the position and on the text.
    """
    rows, T = idx.shape
    declared = model.traits.receptive_field
    reach = T if declared is None else min(declared, T)
    matters_RT = _gradients_by_distance(model, idx)
    if matters_RT is None:  # values cannot replace gradients: an effect over 100 tokens may be below rounding
        return "no embedding lookup of the tokens to take gradients of; `receptive_field` checks values"
    says = "declares no receptive_field" if declared is None else f"declares receptive_field={declared}"
    beyond = matters_RT[:, reach:].any(0).nonzero().flatten().tolist()
    if beyond:
        raise Fault(
            f"the gradient of the logits reaches {reach + beyond[0]} tokens back, though the model {says} "
            "(the present token included); look at the window, at `reach`, or at traits"
        )
    matters_T = matters_RT.any(0)
    regions = [(start, min(start + REGION, reach)) for start in range(0, reach, REGION)]
    if declared is not None and declared <= T - rows:
        regions.append((reach - 1, reach))  # the farthest token decides whether the declared number is too large
    for start, end in regions:
        if not matters_T[start:end].any() and not _values_depend(model, idx, range(start, min(end, T - rows + 1))):
            raise Fault(
                f"the logits at {T - rows} to {T - 1} do not depend on the tokens {start} to {end - 1} back, though "
                f"the model {says}; look at {CHUNK_LOOK}, at detached tensors, or at traits"
            )
    return f"gradients reach {reach} tokens back" + ("" if declared is None else ", and no further")


def _gradients_by_distance(model: LanguageModel, idx: Tensor) -> Tensor | None:
    """Returns (rows, T): True where the gradient of the logits at the r-th last position to that distance is not 0.

    None if the model looks up no embeddings of `idx`.
    """
    rows, T = idx.shape
    matters_RT = torch.zeros(rows, T, dtype=torch.bool)
    with Embeddings(idx) as embeddings:
        logits_BTV = model(idx).logits
    if not embeddings.found:
        return None
    weights_V = torch.linspace(-1, 1, logits_BTV.shape[-1], dtype=logits_BTV.dtype)
    chosen_RV = torch.stack([logits_BTV[r, T - 1 - r] for r in range(rows)])
    for gradient in torch.autograd.grad((chosen_RV @ weights_V).sum(), embeddings.found, allow_unused=True):
        if gradient is not None:
            size_BT = gradient.flatten(2).abs().amax(2)[:, -T:]
            for r in range(rows):
                matters_RT[r, : T - r] |= size_BT[r, : T - r].flip(0) > 0
    return matters_RT


def _values_depend(model: LanguageModel, idx: Tensor, distances: range) -> bool:
    """True if replacing tokens at these distances changes logits: for models with hard choices.

    Tokens are replaced by random ones, and by the last token: a model may look up where that token was before.
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


def _directional_error(model: LanguageModel, idx: Tensor, targets: Tensor) -> float:
    """Returns the relative error of the gradient along a random direction of all parameters; raises `Fault` if large.

    Finite differences of two lengths are tried: a step may cross a kink, such as that of ReLU, or a router's choice.
    """
    model(idx, targets).loss.backward()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        directions = []
        for p in model.parameters():
            direction = torch.randn(p.shape, generator=generator, dtype=p.dtype)
            directions.append(direction * (p.abs().mean().clamp(min=1e-3)))
        pairs = [pair for pair in zip(model.parameters(), directions, strict=True) if pair[0].requires_grad]
        gradient = sum(float((p.grad * d).sum()) for p, d in pairs if p.grad is not None)
        errors = []
        for step in (1e-5, 1e-6):
            values = []
            for sign in (1, -2, 1):  # to + step, to - step, and back to the start
                for p, d in pairs:
                    p.add_(d, alpha=sign * step)
                values.append(model(idx, targets).loss.item())
            measured = (values[0] - values[1]) / (2 * step)
            errors.append(abs(measured - gradient) / max(abs(measured), abs(gradient), 1e-3))
            if errors[-1] <= 1e-3:
                break
    if not min(errors) <= 1e-3:
        raise Fault(
            f"the gradient along a random direction is {gradient:.6g}, the finite difference of the loss "
            f"{measured:.6g}, at {idx.shape[1]} tokens; look at hand-written backward passes, detached tensors, "
            f"{CHUNK_LOOK}{float32_hint(lambda: model(idx))}"
        )
    return min(errors)


def long_precision(subject: Subject) -> str:
    """Checks on the large form that float32 and bfloat16 stay close to float64, also far along the sequence.

    Typical faults: exponents of long sums that overflow, positions counted in bfloat16.
    """
    form = subject.large()[0]
    T = FAR if form.model().traits.extrapolates else form.context
    idx = form.tokens(1, T)
    with torch.no_grad():
        exact_BTV = form.model().double()(idx).logits
        model = form.model()
        plain = require_near(model(idx).logits, exact_BTV, f"{T} tokens in float32", CHUNK_LOOK, allowed=1e-2)
        with torch.autocast("cpu", torch.bfloat16):
            cast_BTV = model(idx).logits
        where = "exponents, long sums, and positions counted in bfloat16"
        worst = _require_flat(cast_BTV, exact_BTV, f"{T} tokens under autocast to bfloat16", where)
        cast_BTV = cast_weights(model, torch.bfloat16)(idx).logits
        worst = max(worst, _require_flat(cast_BTV, exact_BTV, f"{T} tokens with bfloat16 weights", where))
    return f"{T} tokens: off by {plain:.1g} in float32, {worst:.2g} in bfloat16"


def _require_flat(actual_BTV: Tensor, expected_BTV: Tensor, what: str, where: str) -> float:
    """Like `require_near`; also raises `Fault` if late positions are much worse than the first 100."""
    off = require_near(actual_BTV, expected_BTV, what, where)
    off_T = (actual_BTV.double() - expected_BTV).abs().amax(-1)[0] / expected_BTV.abs().max().clamp(min=1)
    early, late = off_T[:100].median().item(), off_T[-100:].median().item()
    if late > max(GROWTH * early, FLAT):
        raise Fault(
            f"{what} is off by {late:.2g} of the largest value at the last positions and by {early:.2g} at the first; "
            f"look at {where}"
        )
    return off


def random_shapes(subject: Subject) -> str:
    """Checks that decoding gives the logits of `forward` at random numbers of rows, lengths and splits, in float64."""
    generator = torch.Generator().manual_seed(subject.seed)

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=generator))

    model = subject.model().double()
    longest = 3 * subject.context if model.traits.extrapolates else subject.context
    shapes = []
    for _ in range(40 if subject.thorough else 4):
        B, T = draw(1, 12), draw(1, longest)
        split: list[int] = []
        while sum(split) < T:
            split.append(draw(1, min(T - sum(split), draw(1, 40))))
        idx = subject.tokens(B, T, seed=subject.seed)
        with torch.no_grad():
            expected_BTV = model(idx).logits
        check_all_positions(model, idx, expected_BTV, split)
        with torch.no_grad():
            alone_BTV = model(idx[-1:]).logits
        require_exact(alone_BTV, expected_BTV[-1:], f"row {B - 1} of {B} rows alone, {T} tokens", LOOK, model, idx)
        shapes.append(f"{B} x {T}")
    return f"rows x tokens {', '.join(shapes)} (seed {subject.seed}), each in a random split"
