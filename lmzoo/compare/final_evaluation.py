"""The final evaluation of a trained model: its loss, and where it comes from, by position and by class of token.

One pass over the split that is reported gives the loss of each target. The evaluation after the last step of a run is
used as this pass if it read the same split in the same windows. With a carried context, this pass gives the losses by
position alone, and a second pass gives all others. A model that extrapolates reads the split once more in longer
windows, which show the loss beyond the training length.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmzoo.compare.token_classes import MEANINGS, TokenClasses
from lmzoo.data.batches import require_stride
from lmzoo.data.store import TokenSplit
from lmzoo.model import LanguageModel
from lmzoo.train.carried import ContextUse, carried_losses
from lmzoo.train.evaluate import EvalResult, PositionLoss, eval_result
from lmzoo.train.token_losses import TokenLosses, losses_in_steps, token_losses

BEYOND = (4, 2)  # length of the windows beyond the training length, in units of it: the first one that fits


@dataclass(frozen=True)
class Details:
    """The losses of one model, in nats per token.

    `by_position` holds {first, last, loss, tokens} for ranges of the number of tokens before the target, `by_class`
    {name, loss, tokens} for the classes of `MEANINGS`. A loss is None if it is not finite, or over no token.
    """

    loss: float
    bits_per_byte: float
    by_position: Sequence[Mapping[str, Any]] = field(default_factory=list)
    by_class: Sequence[Mapping[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class FinalEvaluation:
    """Evaluates models on one split in windows that start `stride` tokens apart; None: that do not overlap.

    The `context` is reset at each window, or carried.
    """

    split: TokenSplit
    classes: TokenClasses
    stride: int | None = None
    context: ContextUse = "reset"

    def __call__(
        self, model: LanguageModel, precision: str, *, further: bool, losses: TokenLosses | None = None
    ) -> Details:
        """Evaluate a model in the `precision` of its training; `further`: also beyond its training length.

        `losses` are of the split with a context that is reset, if they are known.
        """
        split, trained = self.split, model.config.context_length
        if losses is None:
            losses = token_losses(model, split, stride=self.stride, precision=precision)
        positions = losses.by_position(trained)
        if further and model.traits.extrapolates:
            positions += beyond(model, split, precision)
        loss_N = losses.loss_N
        if self.context == "carried":
            loss_N = carried_losses(model, split, precision=precision)
        mean = float(loss_N.mean(dtype="float64"))
        return Details(
            mean,
            mean * split.n_tokens / (math.log(2) * split.n_bytes),
            [asdict(part) | {"loss": _finite(part.loss)} for part in positions],
            self._by_class(loss_N, trained),
        )

    def _by_class(self, loss_N: NDArray[np.float32], context_length: int) -> list[dict[str, Any]]:
        members_KN = self.classes.members(context_length, require_stride(self.stride, context_length))
        sums = members_KN @ loss_N.astype("float64")
        return [
            {"name": name, "loss": _finite(float(total) / tokens) if tokens else None, "tokens": tokens}
            for name, total, tokens in zip(MEANINGS, sums, members_KN.sum(axis=1).tolist(), strict=True)
        ]


class LastPass:
    """The evaluation after the last step of a run, which keeps the loss of each target in `losses`."""

    losses: TokenLosses | None = None

    def __call__(
        self, model: LanguageModel, split: TokenSplit, precision: str
    ) -> Generator[tuple[int, int], None, EvalResult]:
        """Evaluate as `lmzoo.train.evaluate.evaluation`."""
        losses = self.losses = yield from losses_in_steps(model, split, precision=precision)
        context_length = model.config.context_length
        return eval_result(split, losses.mean, losses.loss_N.size, context_length, context_length)


def beyond(model: LanguageModel, split: TokenSplit, precision: str) -> list[PositionLoss]:
    """Return the losses at positions beyond the training length; none for a split that is too short."""
    trained = model.config.context_length
    lengths = [factor * trained for factor in BEYOND if split.n_tokens > factor * trained]
    if not lengths:
        return []
    losses = token_losses(model, split, context_length=lengths[0], precision=precision)
    return [part for part in losses.by_position(trained) if part.first > trained]


def mean_losses(several: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Return the means over seeds of the losses by position or by class; None if one of the losses is None.

    A range or class that only some seeds have is averaged over these.
    """
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for part in (part for parts in several for part in parts):
        groups.setdefault(tuple(value for key, value in part.items() if key != "loss"), []).append(part)
    found: list[dict[str, Any]] = []
    for parts in groups.values():
        losses = [part["loss"] for part in parts]
        found.append({**parts[0], "loss": None if None in losses else math.fsum(losses) / len(losses)})
    return found


def _finite(loss: float) -> float | None:
    return loss if math.isfinite(loss) else None
