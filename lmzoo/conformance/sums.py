"""Checks that sums over many tokens are not kept in 16 bits, where each addition would be rounded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lmzoo import state as states
from lmzoo.conformance.measure import in_bfloat16
from lmzoo.conformance.report import Fault
from lmzoo.conformance.tiny import Subject
from lmzoo.inference.weights import cast_weights

FEW, MANY = 5, 40  # tokens before and after a value is added to a state
SIZES = (1.0, -1000.0)  # of values that are added to a memory: the share that is left must be the same for both
SLOW = 0.8  # share left after one token: a memory that keeps less is no sum over many tokens
MEMORY_DIMENSIONS = 3  # least of the sums of products of linear attention and state spaces: (B, D, N), (B, H, K, V)
LOOK = "init_state(): dtype=wide_dtype(like.dtype), and at products in forward(): wide(), without_autocast()"


@torch.no_grad()
def require_wide_sums(subject: Subject) -> None:
    """Raises `Fault` if a tensor of the state has 16 bits and many tokens are added to it.

    Two states are examined: of a copy for decoding with weights in bfloat16, and after decoding under autocast, which
    shows what training computes.
    """
    copied, model = cast_weights(subject.model(), torch.bfloat16), subject.model()
    cast = in_bfloat16(lambda: model.decode(subject.tokens(1, FEW), model.init_state(1, 8))[1])
    states_in = {
        "in a copy with weights in bfloat16": copied.init_state(1, 8),
        "under autocast to bfloat16": cast,
    }
    narrow = {
        place: how
        for how, state in states_in.items()
        for place, leaf in enumerate(states.leaves_of(state))
        if isinstance(leaf, Tensor) and leaf.is_floating_point() and leaf.dtype.itemsize < 4
    }
    if not narrow:
        return
    decode = _Decoding(subject)
    kinds: dict[Callable[[_Decoding, int], bool], str] = {
        is_sum: "a sum over all tokens in 16 bits ({}): soon it is so large that adding a token does not change it",
        is_decaying_sum: "a sum over many tokens, which decays slowly, in 16 bits ({}): each token rounds it",
    }
    for found, text in kinds.items():
        for place, how in narrow.items():
            if found(decode, place):
                part = text.format(f"part {place} of the state")
                raise Fault(f"{how}, the state holds {part}; look at {LOOK}, of lmzoo.ops.precision")


class _Decoding:
    """A float64 model that has read a few tokens, and reads further ones after a part of its state was changed."""

    def __init__(self, subject: Subject) -> None:
        self.model = subject.model().double()
        length = FEW + MANY if self.model.traits.extrapolates else subject.context
        self.tokens = subject.tokens(1, length)
        _, self.before = self.model.decode(self.tokens[:, :FEW], self.model.init_state(1, length))

    def value(self, place: int) -> Tensor:
        """Returns the leaf of the state at `place`, after the first tokens."""
        value: Tensor = states.leaves_of(self.before)[place]
        return value

    def after(self, place: int, count: int, added: Tensor | None = None) -> Any:
        """Returns the leaf at `place` after `count` further tokens, before which `added` was added to it."""
        leaves = states.leaves_of(self.before)
        if added is not None:
            leaves[place] = leaves[place] + added
        end = FEW + count
        _, state = self.model.decode(self.tokens[:, FEW:end], states.with_leaves(self.before, leaves))
        return states.leaves_of(state)[place]


def is_sum(decode: _Decoding, place: int) -> bool:
    """True for a leaf of the state to which all tokens are added without a decay.

    A value that is added to such a leaf is still there, unchanged, after many tokens that have changed the leaf. A leaf
    that is replaced, decays, or begins anew after a few tokens is no such sum.
    """
    start, end = decode.value(place), decode.after(place, MANY)
    added = _ramp(start)
    kept = (decode.after(place, MANY, added) - end - added).abs() <= 1e-9 * end.abs().clamp(min=1)
    return bool((kept & ((end - start).abs() > 1e-3)).any())


def is_decaying_sum(decode: _Decoding, place: int) -> bool:
    """True for a memory of products of which each token leaves a share of more than `SLOW`, and not all.

    Of values added to it, of either sign and of any size, the same share is left after one token. This excludes
    activations, such as a hidden state, and copies of past tokens, of which all or nothing is left. A vector for each
    row does not count: the cell of an LSTM, or an average, is a mean of its inputs, for which 16 bits suffice.
    """
    start, end = decode.value(place), decode.after(place, 1)
    if start.ndim < MEMORY_DIMENSIONS or end.shape != start.shape:
        return False
    low, high = ((decode.after(place, 1, size * _ramp(start)) - end) / (size * _ramp(start)) for size in SIZES)
    share = (low + high) / 2
    return bool((((low - high).abs() < 1e-7) & (share > SLOW) & (share < 1 - 1e-9)).any())


def _ramp(like: Tensor) -> Tensor:
    """Returns different values of similar size, in the shape and dtype of `like`."""
    return torch.linspace(0.1, 0.2, like.numel(), dtype=like.dtype).view_as(like)
