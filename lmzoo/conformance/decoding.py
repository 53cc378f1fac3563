"""Checks that decoding, in any split of a sequence, gives what `forward` gives on the whole."""

from __future__ import annotations

import random

import torch
from torch import Tensor

from lmzoo.conformance.measure import ROUNDING, difference, require_equal
from lmzoo.conformance.report import Fault
from lmzoo.conformance.tiny import Subject
from lmzoo.model import LanguageModel

LOOK = "init_state() and forward() of the layers (positions, cache, tail, carry)"


def decoding(subject: Subject) -> str:
    """A cache, tail or carry that loses, shifts or repeats something; also past the window and past the context."""
    splits_tried, worst = 0, 0.0
    model = subject.model()
    T = subject.context
    L = 2 * T + 3  # past the context, past two windows of any buffer
    idx = subject.tokens(2, L)
    expected_BTV = expected_logits(subject, model, idx)
    splits = [[n, T - n] for n in range(T, 0, -1)] + [[1] * T]
    chooser = random.Random(0)
    splits += [random_split(chooser, L, 9) for _ in range(6)] + [[1] * L, [T] + [1] * (L - T), [T - 1, 2, L - T - 1]]
    splits += [[L], [L - 1, 1]]
    one_row = [[T], [1] * L, [T - 1, 2, L - T - 1], random_split(chooser, L, 9)]  # some code treats one row separately
    for rows, split in [*((2, split) for split in splits), *((1, split) for split in one_row)]:
        split = [n for n in split if n]
        worst = max(worst, check_split(model, idx[:rows], expected_BTV[:rows], split))
        splits_tried += 1
    for split in ([T - 3, 6, L - T - 3], random_split(chooser, L, 9)):  # with the logits of every position of a chunk
        worst = max(worst, check_all_positions(model, idx, expected_BTV, split))
        splits_tried += 1
    return f"{splits_tried} splits, up to {L} tokens over a context of {T}: off by at most {worst:.1g}"


def expected_logits(subject: Subject, model: LanguageModel, idx: Tensor) -> Tensor:
    """The logits that decoding must give: `forward` on all tokens, or on the last `context_length` of them."""
    with torch.no_grad():
        if model.traits.extrapolates:
            return model(idx).logits
        T = subject.context
        inside_BTV = model(idx[:, :T]).logits
        beyond = [model(idx[:, t - T + 1 : t + 1]).logits[:, -1:] for t in range(T, idx.shape[1])]
        return torch.cat([inside_BTV, *beyond], dim=1)


def check_split(model: LanguageModel, idx: Tensor, expected_BTV: Tensor, split: list[int]) -> float:
    """Decode `idx` in chunks of the lengths `split`; returns the largest difference, raises `Fault` beyond rounding."""
    state, end, worst = model.init_state(idx.shape[0], idx.shape[1]), 0, 0.0
    for n in split:
        logits_BV, state = model.decode(idx[:, end : end + n], state)
        end += n
        off = difference(logits_BV, expected_BTV[:, end - 1])
        if not off <= ROUNDING:
            so_far = f"{len(split)} steps of one token" if set(split) == {1} else f"chunks of {split}"
            raise Fault(
                f"decoded in {so_far} (batch of {idx.shape[0]}), the logits at position {end - 1} are off by {off:.2g} "
                f"(allowed {ROUNDING:g}); look at {LOOK}"
            )
        worst = max(worst, off)
    return worst


def check_all_positions(model: LanguageModel, idx: Tensor, expected_BTV: Tensor, split: list[int]) -> float:
    """As `check_split`, with the logits of every position of a chunk, which speculative decoding and scores rest on."""
    pieces: list[Tensor] = []
    state, end = model.init_state(idx.shape[0], idx.shape[1]), 0
    for n in split:
        logits_BTV, state = model.decode_all(idx[:, end : end + n], state)
        pieces.append(logits_BTV)
        end += n
    return require_equal(torch.cat(pieces, dim=1), expected_BTV, f"every position of chunks of {split}", LOOK)


def random_split(chooser: random.Random, total: int, longest: int) -> list[int]:
    """Chunk lengths that add up to `total`."""
    split: list[int] = []
    while total:
        split.append(min(total, chooser.randint(1, longest)))
        total -= split[-1]
    return split
