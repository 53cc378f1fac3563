"""Checks that the sequences (rows) of a batch do not depend on each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lmzoo.conformance.decoding import decode_steps
from lmzoo.conformance.measure import FLOAT64_ROUNDING, difference, float32_hint
from lmzoo.conformance.report import Fault
from lmzoo.conformance.tiny import Subject

if TYPE_CHECKING:
    from lmzoo.sampling import SamplingConfig

LOOK = "what reduces over axis 0: a norm, a sum, a condition on the largest value, a reshape that mixes batch and time"


def batch_independence(subject: Subject) -> str:
    """Checks that a row's logits do not depend on the other rows, in forward and in decoding.

    Typical faults: a sum or a norm over the batch, a cache that rows share.
    """
    model, T = subject.model().double(), min(subject.context, 9)
    idx = subject.tokens(4, T)
    logits_BTV = model(idx).logits
    other = idx.clone()
    other[1] = (other[1] + 1) % subject.config.vocab_size
    changed_BTV = model(other).logits

    def forward() -> object:
        return model(idx)

    _require_same(changed_BTV[[0, 2, 3]], logits_BTV[[0, 2, 3]], "a row whose neighbor has changed", forward)
    order = [2, 0, 3, 1]
    _require_same(model(idx[order]).logits, logits_BTV[order], "a permuted batch", forward)
    for row in range(4):
        _require_same(model(idx[row : row + 1]).logits, logits_BTV[row : row + 1], f"row {row} alone", forward)

    for calm in subject.calm():
        quiet = torch.cat([idx[:1, :1].expand(1, T), idx[1:]])
        for row in range(2):
            what = f"near the initial weights, row {row} alone"
            _require_same(calm(quiet[row : row + 1]).logits, calm(quiet).logits[row : row + 1], what, lambda: None)

    state = model.init_state(4, T)
    for t in range(T):
        last_BV, state = model.decode(idx[:, t : t + 1], state)
        off = difference(last_BV, logits_BTV[:, t])
        if not off <= FLOAT64_ROUNDING:
            what = f"step {t} of a batch decoded together"
            if float32_hint(forward, off):
                _require_same(last_BV, logits_BTV[:, t], what, forward)
            # `decoding` compares with forward: here it matters only whether a row depends on the others.
            alone = [decode_steps(model, row_1T, model.init_state(1, t + 1))[0] for row_1T in idx[:, : t + 1].split(1)]
            alone_BV = torch.cat(alone)[:, -1]
            _require_same(last_BV, alone_BV, f"{what}, against the rows decoded alone,", forward)
            break
    return "rows alone, permuted, and beside a changed neighbor are the same, in float64"


def _require_same(actual: Tensor, expected: Tensor, what: str, forward: Callable[[], object]) -> None:
    """Raises `Fault` unless the float64 logits are equal; `forward` shows where a model computes in float32."""
    off = difference(actual, expected)
    if not off <= FLOAT64_ROUNDING:
        raise Fault(f"{what} is off by {off:.2g} of the largest value; look at {LOOK}{float32_hint(forward, off)}")


def prompt_lengths(subject: Subject) -> str:
    """Checks that prompts of different lengths, decoded together, continue as each does alone."""
    from lmzoo.generation import generate_ragged

    model = subject.model()
    prompts = [subject.tokens(1, n, seed=n)[0] for n in (2, 6, 4)]
    together = generate_ragged(model, prompts, 4, _greedy())
    for prompt, out in zip(prompts, together, strict=True):
        alone = model.generate(prompt[None], 4, temperature=0.0)[0]
        for position, (found, expected) in enumerate(zip(out.tolist(), alone.tolist(), strict=True)):
            if found != expected:
                raise Fault(
                    f"a prompt of {len(prompt)} tokens, continued beside prompts of other lengths, has the token "
                    f"{found} at position {position}, and {expected} if it is continued alone; look at {LOOK}"
                )
    return "prompts of 2, 6 and 4 tokens continue as each does alone"


def _greedy() -> SamplingConfig:
    from lmzoo.sampling import SamplingConfig

    return SamplingConfig(temperature=0.0)
