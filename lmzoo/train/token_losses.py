"""The loss of each target of a split, in one pass, and its mean by position in the window.

Legend: B batch, T time, D model width, N targets of the split (all tokens except the first), C positions of a chunk.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from lmzoo.data.documents import count_targets, split_windows
from lmzoo.data.store import TokenSplit
from lmzoo.losses import IGNORE_INDEX, chunk_size
from lmzoo.model import LanguageModel
from lmzoo.ops.precision import wide
from lmzoo.train.evaluate import TOKENS_AT_A_TIME, PositionLoss, position_ranges, result_of
from lmzoo.train.precision import autocast


@dataclass(frozen=True)
class TokenLosses:
    """The losses of a split in nats.

    `loss_N` holds the loss of each target in the order of `split_windows`, each counted in one window. `sum_T` and
    `count_T` are over all predictions at a position of the window, also in windows that do not count them.
    """

    loss_N: NDArray[np.float32]
    sum_T: NDArray[np.float64]
    count_T: NDArray[np.int64]

    @property
    def mean(self) -> float:
        """The mean loss, which `evaluate` also computes, up to rounding."""
        return float(self.loss_N.mean(dtype=np.float64))

    def by_position(self, trained: int) -> list[PositionLoss]:
        """Return the mean losses by the number of tokens before the target; one range ends at `trained` tokens.

        Positions that no window reaches are left out.
        """
        sums, counts = self.sum_T, self.count_T
        length = int(np.count_nonzero(counts))
        found: list[PositionLoss] = []
        for first, last in position_ranges(length, trained):
            here = slice(first - 1, last)
            tokens = int(counts[here].sum())
            found.append(PositionLoss(first, last, float(sums[here].sum()) / tokens, tokens))
        return found


def token_losses(
    model: LanguageModel,
    split: TokenSplit,
    *,
    context_length: int | None = None,
    stride: int | None = None,
    precision: str = "float32",
) -> TokenLosses:
    """Compute the loss of each target of `split`; arguments and errors as in `evaluate`.

    The logits of a limited number of positions are in memory at a time, as in training.
    """
    given: dict[str, Any] = {"context_length": context_length, "stride": stride, "precision": precision}
    return result_of(losses_in_steps(model, split, **given))


def losses_in_steps(
    model: LanguageModel,
    split: TokenSplit,
    *,
    context_length: int | None = None,
    stride: int | None = None,
    precision: str = "float32",
) -> Generator[tuple[int, int], None, TokenLosses]:
    """`token_losses` in steps, as `evaluation` yields them."""
    context_length = context_length or model.config.context_length
    batch_size = max(1, TOKENS_AT_A_TIME // context_length)
    losses: list[Tensor] = []
    sum_T = torch.zeros(context_length, dtype=torch.float64)
    count_T = torch.zeros(context_length, dtype=torch.int64)
    done, all_targets, training = 0, count_targets(split), model.training
    model.eval()
    try:
        for idx_BT, targets_BT, counted_BT in split_windows(split, batch_size, context_length, stride=stride):
            yield done, all_targets
            done += int(counted_BT.sum())
            with torch.no_grad(), autocast(model.device, precision):
                x_BTD, _ = model.features(idx_BT.to(model.device))
                loss_BT = target_losses(model, x_BTD, targets_BT.to(model.device)).cpu()
            losses.append(loss_BT[counted_BT])
            T = loss_BT.shape[1]
            sum_T[:T] += loss_BT.sum(dim=0, dtype=torch.float64)
            count_T[:T] += (targets_BT != IGNORE_INDEX).sum(dim=0)
    finally:
        model.train(training)
    return TokenLosses(torch.cat(losses).numpy(), sum_T.numpy(), count_T.numpy())


def target_losses(model: LanguageModel, x_BTD: Tensor, targets_BT: Tensor) -> Tensor:
    """Return the cross-entropies (B, T) for features in float32 or wider; 0 for a target that is ignored."""
    chunk = chunk_size(model.config.vocab_size)
    pieces = [
        F.cross_entropy(wide(model.head(x_CD)), targets_C, ignore_index=IGNORE_INDEX, reduction="none")
        for x_CD, targets_C in zip(x_BTD.flatten(0, 1).split(chunk), targets_BT.flatten().split(chunk), strict=True)
    ]
    return torch.cat(pieces).view(targets_BT.shape)
