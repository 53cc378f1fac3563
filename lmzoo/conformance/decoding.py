"""Checks that decoding a sequence, split in any way, gives the logits of `forward` on the whole sequence."""

from __future__ import annotations

import random

import torch
from torch import Tensor

from lmzoo.conformance import masks
from lmzoo.conformance.lengths import depends_on_length, expected_logits
from lmzoo.conformance.measure import ROUNDING, require_equal, require_exact
from lmzoo.conformance.report import Fault
from lmzoo.conformance.tiny import Subject
from lmzoo.model import LanguageModel
from lmzoo.state import State

LOOK = "init_state() and forward() of the layers (positions, cache, tail, carry)"


def decoding(subject: Subject) -> str:
    """Checks that decoding in many splits gives the logits of `forward`, also past the window and past the context.

    Typical faults: a cache, convolution tail or carry that loses, shifts or repeats something; a mask in decoding that
    large scores exceed.
    """
    worst = 0.0
    model = subject.model().double()
    T = subject.context
    # Past the context, and past two windows of any buffer. For a variant only past the context, to save time.
    L = T + 7 if subject.is_variant else 2 * T + 3
    idx = subject.tokens(2, L)
    expected_BTV = expected_logits(subject, model, idx)
    rng = random.Random(0)
    splits = _splits(T, L, rng, brief=subject.is_variant)
    for rows, split in splits:
        worst = max(worst, check_split(model, idx[:rows], expected_BTV[:rows], split))
    for split in ([T - 3, 6, L - T - 3], random_split(rng, L, 9)):
        worst = max(worst, check_all_positions(model, idx, expected_BTV, split))
    _require_chunks_in_float32(subject, idx[:, :T])
    if not subject.is_variant:
        masks.require_decoding(subject)
    return f"{len(splits) + 2} splits, up to {L} tokens over a context of {T}: off by at most {worst:.1g}"


@torch.no_grad()
def _require_chunks_in_float32(subject: Subject, idx: Tensor) -> None:
    """Raises `Fault` if decoding in chunks differs in the code that runs in float32 alone, such as a fused kernel."""
    model, T = subject.model(), idx.shape[1]
    expected_BTV, state, end = expected_logits(subject, model, idx), model.init_state(*idx.shape), 0
    for n in (T // 3, T // 3, T - 2 * (T // 3)):
        start, end = end, end + n
        found_BTV, state = model.decode_all(idx[:, start:end], state)
        what = f"in float32, and not in float64, a chunk of {n} tokens after {start} earlier ones"
        require_equal(found_BTV, expected_BTV[:, start:end], what, f"{LOOK}, in the code that runs in float32 alone")


def _splits(T: int, L: int, rng: random.Random, *, brief: bool) -> list[tuple[int, list[int]]]:
    """Returns pairs of a batch size and chunk lengths; `brief` leaves out splits that resemble others."""
    wrapping = [T - 1, 2, L - T - 1]
    if brief:
        splits = [[T, 0], [5, T - 5], random_split(rng, L, 9), [1] * L, wrapping, [L - 1, 1]]
        one_row = [random_split(rng, L, 9)]
    else:
        splits = [[n, T - n] for n in (T, T - 1, *range(T - 3, 9, -3), *range(9, 0, -1))]
        splits += [random_split(rng, L, 9) for _ in range(4)]
        splits += [[1] * L, [T] + [1] * (L - T), wrapping, [L], [L - 1, 1]]
        one_row = [wrapping, random_split(rng, L, 9), [T], [1] * L]  # some code treats a batch of one separately
    chosen = [*((2, split) for split in splits), *((1, split) for split in one_row)]
    return [(rows, [n for n in split if n]) for rows, split in chosen]


def check_split(
    model: LanguageModel,
    idx: Tensor,
    expected_BTV: Tensor,
    split: list[int],
    where: str = LOOK,
    *,
    max_len: int | None = None,
) -> float:
    """Decodes `idx` in chunks of the lengths `split` with a float64 model; returns the largest difference.

    `max_len` is the one of `init_state`, by default the length of `idx`. Raises `Fault` for more than rounding.
    """
    return _worst_of_chunks(model, idx, expected_BTV, split, where, max_len, every_position=False)


def _shortened(split: list[int]) -> str:
    """Returns the lengths of chunks for a message: the first and the last ones of many."""
    return str(split) if len(split) <= 12 else f"[{', '.join(map(str, split[:8]))}, ... {split[-1]}]"


def check_all_positions(
    model: LanguageModel,
    idx: Tensor,
    expected_BTV: Tensor,
    split: list[int],
    where: str = LOOK,
    *,
    max_len: int | None = None,
) -> float:
    """Like `check_split`, but compares `decode_all`, which speculative decoding and `score` use, at every position."""
    return _worst_of_chunks(model, idx, expected_BTV, split, where, max_len, every_position=True)


def _worst_of_chunks(
    model: LanguageModel,
    idx: Tensor,
    expected_BTV: Tensor,
    split: list[int],
    where: str,
    max_len: int | None,
    *,
    every_position: bool,
) -> float:
    """Decodes chunk by chunk; compares every position (`decode_all`) or the last one of each chunk (`decode`)."""
    B, T = idx.shape
    state, end, worst = model.init_state(B, T if max_len is None else max_len), 0, 0.0
    so_far = f"{len(split)} steps of one token" if set(split) == {1} else f"chunks of {_shortened(split)}"
    start = "" if max_len is None else f" from init_state({B}, {max_len})"
    where += ", and at same_until()" if depends_on_length(model) else ""
    for n in split:
        first, end = end, end + n
        if every_position:
            logits, state = model.decode_all(idx[:, first:end], state)
            expected, place = expected_BTV[:, first:end], f"one of positions {first} to {end - 1}"
        else:
            logits, state = model.decode(idx[:, first:end], state)
            expected, place = expected_BTV[:, end - 1], f"position {end - 1}"
        what = f"decoded in {so_far}{start} (batch of {B}), {place}"
        try:
            worst = max(worst, require_exact(logits, expected, what, where, model, idx[:, :end], state))
        except Fault as fault:
            raise Fault(f"{fault}{_first_difference(model, idx, expected_BTV, split, max_len)}") from fault
    return worst


def _first_difference(
    model: LanguageModel, idx: Tensor, expected_BTV: Tensor, split: list[int], max_len: int | None
) -> str:
    """Returns the end of a message about a split that differs from `forward`: the first position that differs."""
    B, T = idx.shape
    state, end, context = model.init_state(B, T if max_len is None else max_len), 0, model.config.context_length
    for n in split:
        logits, state = model.decode_all(idx[:, end : end + n], state)
        wanted_BTV = expected_BTV[:, end : end + n]
        off_T = ~((logits - wanted_BTV).abs().amax((0, 2)) <= ROUNDING) & ~wanted_BTV.isnan().any(2).any(0)
        if off_T.any():
            t = end + int(off_T.nonzero()[0])
            if end == 0 and t < context:
                return (
                    f"; the first call alone differs from position {t} on: compare what features() computes with a "
                    "state and without one"
                )
            return f"; the first position that differs is {t}" + (
                f": all before context_length={context} agree, so look at positions past the context"
                if t == context
                else ""
            )
        end += n
    return ""


def decode_steps(model: LanguageModel, idx: Tensor, state: State) -> tuple[Tensor, State]:
    """Decodes `idx` token by token; returns the logits of every position (B, T, V) and the next state."""
    logits = list[Tensor]()
    for token_B1 in idx.split(1, dim=1):
        logits_BV, state = model.decode(token_B1, state)
        logits.append(logits_BV)
    return torch.stack(logits, dim=1), state


def decode_chunks(model: LanguageModel, idx: Tensor, lengths: int | list[int]) -> Tensor:
    """Decodes `idx` in chunks of these lengths; returns the logits of every position (B, T, V)."""
    state, logits = model.init_state(*idx.shape), list[Tensor]()
    for chunk in idx.split(lengths, dim=1):
        chunk_BTV, state = model.decode_all(chunk, state)
        logits.append(chunk_BTV)
    return torch.cat(logits, dim=1)


def random_split(rng: random.Random, total: int, longest: int) -> list[int]:
    """Returns random chunk lengths, at most `longest`, that add up to `total`."""
    split: list[int] = []
    while total:
        split.append(min(total, rng.randint(1, longest)))
        total -= split[-1]
    return split
