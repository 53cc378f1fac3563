"""Is a row alone the row in a batch? Nothing may pass between the rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from lmzoo.conformance.measure import require_equal, require_same_bits
from lmzoo.conformance.report import Fault
from lmzoo.conformance.tiny import Subject

if TYPE_CHECKING:
    from lmzoo.sampling import SamplingConfig

LOOK = "what reduces over axis 0: a norm, a sum, a reshape that mixes batch and time"


def batch_independence(subject: Subject) -> str:
    """Rows that see each other, in forward or in decoding: sums and norms over the batch, a shared cache.

    A model that declares `batch_exact` is held to the bit, and one without any product to round must declare it.
    """
    model, T = subject.model(), min(subject.context, 9)
    idx = subject.tokens(4, T)
    logits_BTV = model(idx).logits
    other = idx.clone()
    other[1] = (other[1] + 1) % subject.config.vocab_size
    changed_BTV = model(other).logits
    require_same_bits(changed_BTV[[0, 2, 3]], logits_BTV[[0, 2, 3]], "a row whose neighbour has changed", LOOK)
    order = [2, 0, 3, 1]
    exact = model.traits.batch_exact
    if not exact and model.flops_per_token(T) == 0:
        raise Fault("there is no product that rounding could touch; look at traits: declare batch_exact=True")
    require = require_same_bits if exact else require_equal
    require(model(idx[order]).logits, logits_BTV[order], "a permuted batch", LOOK)
    for row in range(4):
        require(model(idx[row : row + 1]).logits, logits_BTV[row : row + 1], f"row {row} alone", LOOK)
    state = model.init_state(4, T)
    for t in range(T):
        last_BV, state = model.decode(idx[:, t : t + 1], state)
        require(last_BV, logits_BTV[:, t], f"step {t} of a batch decoded together", LOOK)
    how = "the same bits" if exact else "the same but for rounding"
    return f"rows alone, permuted, and beside a changed neighbour are {how}"


def prompt_lengths(subject: Subject) -> str:
    """Prompts of different lengths, decoded together, that do not give what each gives alone."""
    from lmzoo.generation import generate_ragged

    model = subject.model()
    prompts = [subject.tokens(1, n, seed=n)[0] for n in (2, 6, 4)]
    together = generate_ragged(model, prompts, 4, _greedy())
    for prompt, out in zip(prompts, together, strict=True):
        alone = model.generate(prompt[None], 4, temperature=0.0)[0]
        if not torch.equal(out, alone):
            at = int((out != alone).nonzero()[0]) if out.shape == alone.shape else -1
            require_equal(
                out.double(), alone.double(), f"a prompt of {len(prompt)} beside others, position {at},", LOOK
            )
    return "prompts of 2, 6 and 4 tokens continue together as alone"


def _greedy() -> SamplingConfig:
    from lmzoo.sampling import SamplingConfig

    return SamplingConfig(temperature=0.0)
