"""Repeats the choices of an exact run, for models that declare that they choose (`traits.chooses`).

A layer that takes the largest of many scores may take others after the smallest rounding, and then computes something
else. So logits in bfloat16 can be compared with exact ones only if both runs take the same entries, and a finite
difference equals the gradient only if no entry is exchanged within the step. The declaration excuses nothing else:
scores in 16 bits must lead to nearly the same choices, and with equal choices the logits must agree as for any other
model.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from lmzoo.conformance.report import Fault
from lmzoo.model import LanguageModel
from lmzoo.ops.stable_topk import choosing

WORSE = 0.1  # share of the entries left out that may, on average, be better than the worst one that is taken in 16 bits
LOOK = "the scores: compute them in float32 (`lmzoo.ops.precision.wide`), without positions or sums in bfloat16"


class Choice(NamedTuple):
    """One call of `stable_topk`: its scores (..., S), and the indices of the chosen entries (..., K)."""

    scores: Tensor
    indices: Tensor

    def worse(self, indices: Tensor) -> Tensor:
        """Returns how bad it would be to take `indices` instead, from 0 to 1, for each row that leaves out an entry.

        This is the share of the entries left out that are better than the worst one taken. Equal scores are equally
        good; a score of -inf counts as no entry.
        """
        taken = self.scores.gather(-1, indices)
        worst = taken.amin(-1, keepdim=True)
        missed = (self.scores > worst).sum(-1) - (taken > worst).sum(-1)
        left_out = (self.scores > -torch.inf).sum(-1) - indices.shape[-1]
        return (missed / left_out)[left_out > 0]

    @property
    def leaves_out(self) -> bool:
        """False if every row takes all of its entries."""
        return bool(((self.scores > -torch.inf).sum(-1) > self.indices.shape[-1]).any())


class Choices:
    """The choices of an exact run of `model`, to be repeated by other runs on the same tokens in the same chunks."""

    def __init__(self, model: LanguageModel) -> None:
        self.declared = model.traits.chooses
        self.made: list[Choice] = []

    @property
    def leave_out(self) -> bool:
        """True if a choice left out an entry."""
        return any(choice.leaves_out for choice in self.made)

    @property
    def hint(self) -> str:
        """The end of a message about a model that chooses and does not declare it; empty for others."""
        if self.declared or not self.leave_out:
            return ""
        return (
            ", or at what it chooses by stable_topk: if rounding changes that, declare chooses=True in traits "
            "(`chooses = True` on the layer)"
        )

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Records the choices within the block."""

        def record(scores: Tensor, indices: Tensor) -> Tensor:
            self.made.append(Choice(scores, indices))
            return indices

        with choosing(record):
            yield

    @contextmanager
    def repeated(self, what: str, *, chunks: int = 1) -> Iterator[None]:
        """Makes a model that declares `chooses` take the recorded entries within the block; does nothing for others.

        Raises `Fault` if it chooses among other entries, or would take much worse ones by itself. `what` names the run
        in messages. The block must read the tokens in as many chunks as the recorded run; the choices of one layer in
        all chunks are judged together.
        """
        if not self.declared:
            yield
            return
        following = iter(self.made)
        worse: list[Tensor] = []

        def repeat(scores: Tensor, indices: Tensor) -> Tensor:
            exact = next(following, None)
            if exact is None or (exact.scores.shape, exact.indices.shape) != (scores.shape, indices.shape):
                raise Fault(f"{what} calls stable_topk with scores of {tuple(scores.shape)}, unlike the exact run")
            worse.append(exact.worse(indices))
            return exact.indices

        with choosing(repeat):
            yield
        if len(worse) != len(self.made):
            raise Fault(f"{what} calls stable_topk {len(worse)} times, the exact run {len(self.made)} times")
        layers = max(1, len(worse) // chunks)
        for layer in range(layers if worse else 0):
            off = torch.cat([x.flatten() for x in worse[layer::layers]]).double().mean().item()
            if off > WORSE:  # False for NaN, the mean over no choice that leaves out an entry
                raise Fault(
                    f"{what} takes worse entries than the exact run: {off:.0%} of those that it leaves out are better, "
                    f"on average over the choices of one layer (call {layer + 1} of {layers} of stable_topk; allowed "
                    f"{WORSE:.0%}); look at {LOOK}"
                )
