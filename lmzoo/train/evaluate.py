"""Validation loss over every target of a split, summed in float64, and the loss by position."""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lmzoo.data.batches import eval_batches
from lmzoo.data.store import TokenSplit
from lmzoo.distributed.ranks import ALONE, Ranks
from lmzoo.errors import DataError
from lmzoo.losses import IGNORE_INDEX
from lmzoo.model import LanguageModel
from lmzoo.train.precision import autocast

TOKENS_AT_A_TIME: int = 8192
# Enough tokens for two digits at each position, but not too slow for models that recompute a window for each token.
POSITION_TOKENS = 1 << 15


@dataclass(frozen=True)
class EvalResult:
    """Mean `loss` in nats per token over `tokens` targets, which correspond to about `bytes` bytes of text."""

    loss: float
    bits_per_byte: float
    tokens: int
    bytes: int


def evaluate(
    model: LanguageModel,
    split: TokenSplit,
    *,
    batch_size: int | None = None,
    context_length: int | None = None,
    precision: str = "float32",
    tokens: int | None = None,
    ranks: Ranks = ALONE,
) -> EvalResult:
    """Compute the mean loss over all targets of `split`, or over its first `tokens` targets.

    The split is cut into sequences of `context_length` tokens (default: the model's) that do not overlap, so the first
    tokens of each sequence have little context. A batch holds `batch_size` sequences (default: `TOKENS_AT_A_TIME`
    tokens). `precision` is "float32" or "bf16". Bits per byte are converted with the tokens per byte of the whole
    split. With several `ranks`, each reads its rows of every batch.
    """
    steps = evaluation(
        model,
        split,
        batch_size=batch_size,
        context_length=context_length,
        precision=precision,
        tokens=tokens,
        ranks=ranks,
    )
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def evaluation(
    model: LanguageModel,
    split: TokenSplit,
    *,
    batch_size: int | None = None,
    context_length: int | None = None,
    precision: str = "float32",
    tokens: int | None = None,
    ranks: Ranks = ALONE,
) -> Generator[tuple[int, int], None, EvalResult]:
    """`evaluate` in steps: yields (targets done, all targets) before each batch, and returns the result.

    A caller that leaves early must close the generator, so that the model is in its former mode again.
    """
    context_length = context_length or model.config.context_length
    batch_size = batch_size or max(1, TOKENS_AT_A_TIME // context_length)
    ids = split.tokens if tokens is None else split.tokens[: tokens + 1]
    sums = torch.zeros(2, dtype=torch.float64, device=model.device)  # sum of the losses, number of targets
    done, training = 0, model.training
    model.eval()
    try:
        for idx_BT, targets_BT in eval_batches(ids, batch_size, context_length):
            yield done, len(ids) - 1
            done += idx_BT.numel()
            idx_BT, targets_BT = (ranks.rows(part) for part in _padded(idx_BT, targets_BT, ranks.world_size))
            n = (targets_BT != IGNORE_INDEX).sum()
            with torch.no_grad(), autocast(model.device, precision):
                _, loss = model(idx_BT.to(model.device), targets_BT.to(model.device), return_logits=False)
            n = n.to(model.device)
            sums += torch.stack((loss.double() * n, n))
    finally:
        model.train(training)
    total, count = ranks.all_reduce_sum(sums).tolist()
    mean, count = total / count, int(count)
    bits_per_byte = mean * split.n_tokens / (math.log(2) * split.n_bytes)
    return EvalResult(mean, bits_per_byte, count, round(split.n_bytes * count / split.n_tokens))


def _padded(idx_BT: Tensor, targets_BT: Tensor, multiple: int) -> tuple[Tensor, Tensor]:
    """Pad with rows that the loss ignores to a multiple of `multiple` rows: all ranks must read equally many."""
    missing = -len(idx_BT) % multiple
    pad = (0, 0, 0, missing)
    return F.pad(idx_BT, pad), F.pad(targets_BT, pad, value=IGNORE_INDEX)


@dataclass(frozen=True)
class PositionLoss:
    """Mean `loss` in nats per token over the `tokens` targets that had `first` to `last` tokens before them."""

    first: int
    last: int
    loss: float
    tokens: int


def evaluate_positions(
    model: LanguageModel, split: TokenSplit, *, length: int | None = None, tokens: int = POSITION_TOKENS
) -> list[PositionLoss]:
    """Compute the loss by position: by the number of tokens before the target, 1 to `length`.

    `length` defaults to the model's `context_length`. The loss is averaged over sequences of `length` targets that do
    not overlap, from the first `tokens` targets of the split (at least one sequence). Positions are grouped in ranges
    of doubling size, one of which ends at the context length of training. Raises `DataError` for a split that is
    shorter than one sequence.
    """
    trained = model.config.context_length
    length = length or trained
    if split.n_tokens <= length:
        raise DataError(f"the {split.split} split has {split.n_tokens} tokens: length={length} needs {length + 1}")
    windows = max(1, min(tokens, split.n_tokens - 1) // length)
    rows = max(1, TOKENS_AT_A_TIME // length)
    total_T = torch.zeros(length, dtype=torch.float64)
    for start in range(0, windows, rows):
        starts = range(start * length, min(start + rows, windows) * length, length)
        idx_BT = torch.stack([torch.from_numpy(split.tokens[s : s + length + 1].astype("int64")) for s in starts])
        total_T -= model.score(idx_BT).double().sum(dim=0).cpu()
    ends = sorted({2**n for n in range(length.bit_length())} | {length} | ({trained} if trained < length else set()))
    firsts = [1, *(end + 1 for end in ends[:-1])]
    return [
        PositionLoss(first, last, float(total_T[first - 1 : last].mean()) / windows, windows * (last - first + 1))
        for first, last in zip(firsts, ends, strict=True)
    ]
