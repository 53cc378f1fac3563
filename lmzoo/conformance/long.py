"""Checks at sizes that the tiny form does not reach: about 300 tokens, 9 rows, 4 or more layers.

Chunked algorithms, block masks, caches and closed forms are often wrong only past their first chunks.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor

from lmzoo.conformance import masks
from lmzoo.conformance.causality import LEAK, LENGTH_LEAK, require_no_other_cause
from lmzoo.conformance.choices import Choices
from lmzoo.conformance.clones import clone
from lmzoo.conformance.decoding import LOOK, check_all_positions, check_split, decode_chunks
from lmzoo.conformance.lengths import comparable, depends_on_length, expected_logits
from lmzoo.conformance.measure import (
    FLOAT64_ROUNDING,
    difference,
    first_position,
    float32_hint,
    in_bfloat16,
    require_exact,
    require_near,
)
from lmzoo.conformance.reach import CHUNK_LOOK
from lmzoo.conformance.report import Fault, described, raised_at
from lmzoo.conformance.rounding import RoundedLinear, WideAngles
from lmzoo.conformance.tiny import Subject, perturb
from lmzoo.inference.weights import cast_weights
from lmzoo.model import LanguageModel

ROWS = 9
CUTS = (299, 257, 128, 65, 64, 256, 200, 33)  # one for each row but the first
FEWER = 5  # rows, where the plain form in eval mode has been checked with all
SHORTER = (257, 129, 100, 64)
GROWTH, FLAT = 4, 0.02  # by what factor, and from which size on, errors in bfloat16 must not grow along the sequence
NEAR, LEAST = 16, 1e-4  # positions before a change, and the least change of their logits that is a leak
EXCUSED = 1.5  # times the error that rounding the linear maps alone causes
CALM = 0.3  # of the usual random weights
FAR = 600  # tokens, for models that extrapolate
# Tokens, more than the tables of 2048 positions that are often made once; in a thorough check more than 4096.
VERY_LONG, LONGEST = 2100, 4200
CHUNK = 150  # tokens, decoded at once in 16 bits


def long_causality(subject: Subject) -> str:
    """Checks on the large form that logits do not depend on later tokens or on other rows, in float64.

    Typical faults: a mask of blocks, a chunk that reads its own end, a row or a position beyond a fixed number.
    """
    forms = subject.large()
    T = forms[0].context
    for form in forms:
        model = form.model().double()
        row = form.tokens(1, T)
        other = (row + 1 + form.tokens(1, T, seed=1) % (form.config.vocab_size - 1)) % form.config.vocab_size
        changed = [torch.cat([row[:, :cut], other[:, cut:]], dim=1) for cut in CUTS]
        idx = torch.cat([row, *changed])
        plain = form is forms[0]
        _require_causal(model, idx if plain else idx[:FEWER], "in eval mode")
        if plain and not model.traits.random_in_training:
            _require_causal(_slow(form).double().train(), idx[:FEWER], "in train mode")
    masks.require_causal(forms[0], brief=True)
    return f"{len(CUTS)} cuts of {T} tokens in a batch of {ROWS}, {len(SHORTER)} shorter inputs: unchanged before them"


def _require_causal(model: LanguageModel, idx: Tensor, mode: str) -> None:
    """Row r + 1 of `idx` is row 0 with other tokens from CUTS[r] on; the last rows may be missing."""

    def fresh(model: LanguageModel) -> LanguageModel:
        return clone(model) if model.training else model  # in training a model may count what it has chosen

    with torch.no_grad():
        logits_BTV = fresh(model)(idx).logits
        for r, cut in enumerate(CUTS[: len(idx) - 1]):
            found_BTV, expected_BTV = logits_BTV[r + 1 : r + 2, :cut], logits_BTV[:1, :cut]
            _require_same(model, idx, found_BTV, expected_BTV, f"{mode}, changing the tokens from position {cut} on")
        for cut in (cut for cut in SHORTER if comparable(model, cut, idx.shape[1])):
            rows = slice(0, 1) if cut % 2 else slice(len(idx) - 2, len(idx))  # also the last rows, alone
            found_BTV = fresh(model)(idx[rows, :cut]).logits
            what = f"{mode}, leaving out other rows and the tokens from position {cut} on"
            _require_same(model, idx, found_BTV, logits_BTV[rows, :cut], what)


def _require_same(model: LanguageModel, idx: Tensor, found: Tensor, expected: Tensor, what: str) -> None:
    off = difference(found, expected)
    if not off <= FLOAT64_ROUNDING:
        require_no_other_cause(model, idx, drops=False)
        position = first_position(found, expected, FLOAT64_ROUNDING)
        hint = float32_hint(lambda: model(idx[:1]), off)
        raise Fault(
            f"with {idx.shape[1]} tokens {what} changes the logits at {position} by {off:.2g}; look at "
            f"{LENGTH_LEAK if 'leaving out' in what else LEAK}, and at {CHUNK_LOOK}{hint}"
        )


def long_decoding(subject: Subject) -> str:
    """Checks on the large form that decoding in a few splits gives the logits of `forward`, in float64."""
    worst = 0.0
    forms = subject.large()
    T = forms[0].context
    splits: list[tuple[int, list[int]]] = [
        (ROWS, [64, 64, 1, 127, T - 256]),
        (1, [57, *[1] * 12, T - 69]),
        (2, [T]),
        (1, [T - 171, 171]),
        (1, [250, *[1] * 9, T - 259]),
    ]
    slow = _slow(forms[0]).double()
    few_rows = [(2, splits[0][1]), *splits[1:]]
    runs = [(form, form.model().double(), T, splits[:2] if form is forms[0] else few_rows[:2]) for form in forms]
    runs.append((forms[0], slow, T, [few_rows[0], *splits[2:]]))
    if slow.traits.extrapolates:  # three chunks of 256: a carry may be wrong from the second one on
        runs.append((forms[0], slow, FAR, [(1, [257, FAR - 257])]))
    for form, model, length, chosen in runs:
        idx = form.tokens(max(rows for rows, _ in chosen), length)
        ends = {end for _, split in chosen for end in itertools.accumulate(split)}
        expected_BTV = expected_logits(form, model, idx, ends)
        # Else each position past a change of lengths reads all tokens again; `decoding` compares all in the tiny form.
        check = check_split if depends_on_length(model) else check_all_positions
        for rows, split in chosen:
            where = f"{LOOK}, {CHUNK_LOOK}"
            worst = max(worst, check(model, idx[-rows:], expected_BTV[-rows:], split, where))
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


def long_precision(subject: Subject) -> str:
    """Checks on the large form that float32 and bfloat16 stay close to float64, also far along the sequence.

    A model with chooses=True in traits takes the entries of the float64 run, and must have left out some.
    Typical faults: exponents of long sums that overflow, positions counted in bfloat16, a kernel for bfloat16 with
    another mask.
    """
    form = subject.large()[0]
    try:
        return _precision(form, form.model())
    except Sharp as fault:
        # Random weights may make scores so large that a softmax is nearly a choice, which rounding changes anywhere.
        calm = form.model(perturbed=False)
        perturb(calm, scale=CALM)
        try:
            return f"{_precision(form, calm)}, with smaller random weights"
        except Fault:
            raise Fault(*fault.args) from None


class Sharp(Fault):
    """Raised for logits in 16 bits that are off by about as much everywhere."""


def _precision(form: Subject, model: LanguageModel) -> str:
    """Checks the precision of one model, as `long_precision` does."""
    T = FAR if form.model().traits.extrapolates else form.context
    idx = form.tokens(1, T)
    with torch.no_grad():
        choices, exact = Choices(model), clone(model).double()
        with choices.recorded():
            exact_BTV = exact(idx).logits
        if choices.declared and not choices.leave_out:
            raise Fault(
                f"traits says chooses=True, but at {T} tokens no call of stable_topk leaves an entry out "
                f"({len(choices.made)} calls): remove the declaration, or choose by lmzoo.ops.stable_topk"
            )
        plain = require_near(model(idx).logits, exact_BTV, f"{T} tokens in float32", CHUNK_LOOK, allowed=1e-2)
        where = f"exponents, long sums, and positions counted in bfloat16{choices.hint}"
        what = f"{T} tokens under autocast to bfloat16"
        with choices.repeated(what), WideAngles():
            cast_BTV = in_bfloat16(lambda: model(idx).logits)
        if not model.traits.chooses:
            _require_causal_in_bfloat16(form, model, idx, cast_BTV)

        def rounded() -> Tensor:
            with choices.repeated("a run with rounded linear maps"), RoundedLinear():
                return exact(idx).logits

        worst = _require_flat(cast_BTV, exact_BTV, what, where, rounded)
        cast, what = cast_weights(model, torch.bfloat16), f"{T} tokens with bfloat16 weights"
        with choices.repeated(what), WideAngles():
            cast_BTV = cast(idx).logits
        worst = max(worst, _require_flat(cast_BTV, exact_BTV, what, where, rounded))
        if not choices.declared and not depends_on_length(model):
            what, where = f"{T} tokens with bfloat16 weights, decoded in chunks", "the dtype of sums in the state"
            with WideAngles():
                worst = max(worst, _require_flat(decode_chunks(cast, idx, CHUNK), exact_BTV, what, where, rounded))
    return f"{T} tokens: off by {plain:.1g} in float32, {worst:.2g} in bfloat16"


def _require_causal_in_bfloat16(form: Subject, model: LanguageModel, idx: Tensor, expected_BTV: Tensor) -> None:
    """Raises `Fault` if changing the last tokens changes the logits just before them, under autocast to bfloat16.

    Rounding may change single logits too (an FFT, other rows of an expert), but as much at earlier positions as at
    these; where only few are changed, a second text will not change the same.
    """
    T = idx.shape[1]
    cut = (T - NEAR - 1) // 64 * 64 + NEAR  # the positions before it begin a block, if blocks have 16 to 64 tokens
    largest = expected_BTV.float().abs().max().clamp(min=1)

    def effect(step: int) -> tuple[float, float]:
        changed = torch.cat([idx[:, :cut], (idx[:, cut:] + step) % form.config.vocab_size], dim=1)
        off_BTV = in_bfloat16(lambda: model(changed).logits) - expected_BTV
        off_T = off_BTV.float().abs().amax((0, 2))[:cut] / largest
        return off_T[-NEAR:].max().item(), off_T[:-NEAR].max().item()

    effects = [effect(step) for step in (1, 2)]
    if all(near > GROWTH * far + LEAST for near, far in effects):
        near, far = effects[0]
        raise Fault(
            f"under autocast to bfloat16, changing the tokens from position {cut} of {T} on changes the logits of the "
            f"{NEAR} positions before by {near:.2g} of the largest value, and of those before by {far:.2g}; look at "
            f"{LEAK}, in the code that runs in bfloat16 alone"
        )


def _require_flat(
    actual_BTV: Tensor, expected_BTV: Tensor, what: str, where: str, rounded: Callable[[], Tensor]
) -> float:
    """Like `require_near`; also raises `Fault` if late positions are much worse than the first 100.

    `rounded` returns logits in which only the linear maps are rounded. What is about as far off there follows from the
    precision of training, and not from what the model computes in between, such as angles that add up.
    """
    off_T = _off_by_position(actual_BTV, expected_BTV)
    early, late = off_T[:100].median().item(), off_T[-100:].median().item()
    try:
        if late > max(GROWTH * early, FLAT):
            raise Fault(
                f"{what} is off by {late:.2g} of the largest value at the last positions and by {early:.2g} at the "
                f"first; look at {where}"
            )
        return require_near(actual_BTV, expected_BTV, what, where)
    except Fault as fault:
        if not off_T.isfinite().all():
            raise
        as_rounded_T = _off_by_position(rounded(), expected_BTV)
        if late <= EXCUSED * as_rounded_T[-100:].median() and off_T.median() <= EXCUSED * as_rounded_T.median():
            return off_T.median().item()
        raise fault if late > max(GROWTH * early, FLAT) else Sharp(*fault.args) from None


def _off_by_position(actual_BTV: Tensor, expected_BTV: Tensor) -> Tensor:
    return (actual_BTV.double() - expected_BTV).abs().amax((0, 2)) / expected_BTV.abs().max().clamp(min=1)


@torch.no_grad()
def _require_very_long(subject: Subject, length: int) -> None:
    """Raises `Fault` if a text of `length` tokens cannot be read, or if it changes the logits of its beginning."""
    model, idx, T = subject.model(), subject.tokens(1, length), subject.context
    try:
        logits_BTV = model(idx).logits
    except Exception as error:
        raise Fault(
            f"{length} tokens raise {described(error)}{raised_at(error)}, though traits says extrapolates=True; look "
            "at tables of positions that are made once"
        ) from error
    if not depends_on_length(model):
        require_near(logits_BTV[:, :T], model(idx[:, :T]).logits, f"the beginning of {length} tokens", LOOK)


def random_shapes(subject: Subject) -> str:
    """Checks that decoding gives the logits of `forward` at random numbers of rows, lengths and splits, in float64.

    A model that extrapolates also reads 2,100 tokens in float32 (4,200 in a thorough check).
    """
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
        expected_BTV = expected_logits(subject, model, idx)
        check_all_positions(model, idx, expected_BTV, split)
        alone_BTV = expected_logits(subject, model, idx[-1:])
        require_exact(alone_BTV, expected_BTV[-1:], f"row {B - 1} of {B} rows alone, {T} tokens", LOOK, model, idx)
        shapes.append(f"{B} x {T}")
    if model.traits.extrapolates:
        length = LONGEST if subject.thorough else VERY_LONG
        _require_very_long(subject, length)
        shapes.append(f"1 x {length}")
    return f"rows x tokens {', '.join(shapes)} (seed {subject.seed}), each in a random split"
