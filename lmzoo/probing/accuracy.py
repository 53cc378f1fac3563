"""The share of right answers among all questions. Legend: B rows, T time, V vocabulary."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lmzoo.losses import IGNORE_INDEX
from lmzoo.model import LanguageModel
from lmzoo.train.evaluate import TOKENS_AT_A_TIME
from lmzoo.train.precision import autocast

_LOGITS_AT_A_TIME = 1 << 24  # largest number of logits in memory


def accuracy(
    model: LanguageModel,
    idx_BT: Tensor,
    targets_BT: Tensor,
    *,
    precision: str = "float32",
    progress: Callable[[int, int], None] | None = None,
) -> float:
    """Returns the share of the targets other than IGNORE_INDEX that have the largest logit, in [0, 1].

    `precision` is "float32" or "bf16"; `progress(done, total)` is called with rows before each batch.
    """
    rows, length = idx_BT.shape
    at_a_time = max(1, min(TOKENS_AT_A_TIME, _LOGITS_AT_A_TIME // model.config.vocab_size) // length)
    right, was_training = 0, model.training
    model.eval()
    try:
        for start in range(0, rows, at_a_time):
            if progress is not None:
                progress(start, rows)
            idx, targets = (part[start : start + at_a_time].to(model.device) for part in (idx_BT, targets_BT))
            with torch.no_grad(), autocast(model.device, precision):
                guesses = model(idx).logits.argmax(dim=-1)
            right += int((guesses == targets).sum())  # no guess is IGNORE_INDEX
    finally:
        model.train(was_training)
    return right / int((targets_BT != IGNORE_INDEX).sum())
