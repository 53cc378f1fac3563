"""Validation loss over every target of a split, summed in float64, and the loss by position."""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from lmzoo.data.batches import require_stride
from lmzoo.data.documents import count_targets, split_batches
from lmzoo.data.store import TokenSplit
from lmzoo.distributed.ranks import ALONE, Ranks
from lmzoo.errors import DataError
from lmzoo.losses import IGNORE_INDEX
from lmzoo.model import LanguageModel
from lmzoo.train.precision import autocast

TOKENS_AT_A_TIME: int = 8192
# Enough tokens for two digits at each position, but not too slow for models that recompute a window for each token.
POSITION_TOKENS = 1 << 15
ResultT = TypeVar("ResultT")


@dataclass(frozen=True)
class EvalResult:
    """Mean `loss` in nats per token over `tokens` targets, which correspond to about `bytes` bytes of text.

    The text was read in windows of `context_length` tokens that start `stride` tokens apart. The `context` is "reset"
    at each window, or "carried" (`lmzoo.train.carried`).
    """

    loss: float
    bits_per_byte: float
    tokens: int
    bytes: int
    context_length: int
    stride: int
    context: str = "reset"


def evaluate(
    model: LanguageModel,
    split: TokenSplit,
    *,
    batch_size: int | None = None,
    context_length: int | None = None,
    stride: int | None = None,
    precision: str = "float32",
    tokens: int | None = None,
    ranks: Ranks = ALONE,
) -> EvalResult:
    """Compute the mean loss over all targets of `split`, or over its first `tokens` targets.

    The split is read in windows of `context_length` tokens (default: the model's), each without a context before it. A
    window starts `stride` tokens after the one before it. By default windows do not overlap, so the first tokens of
    each have little context; with a smaller stride, each target counts once, and has at least
    `context_length - stride` tokens of context, except in the first window (see `eval_windows`). A batch holds
    `batch_size` windows (default: `TOKENS_AT_A_TIME` tokens). `precision` is "float32" or "bf16". Bits per byte are
    converted with the tokens per byte of the whole split. With several `ranks`, each reads its rows of every batch.
    A split of isolated documents is read document by document, and longer ones in pieces (`data.documents`), without a
    stride; the first token of a document is no target. Raises `ConfigError` for a stride that cannot be.
    """
    steps = evaluation(
        model,
        split,
        batch_size=batch_size,
        context_length=context_length,
        stride=stride,
        precision=precision,
        tokens=tokens,
        ranks=ranks,
    )
    return result_of(steps)


def result_of(steps: Generator[Any, None, ResultT]) -> ResultT:
    """Run a generator to its end; returns what it returns."""
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
    stride: int | None = None,
    precision: str = "float32",
    tokens: int | None = None,
    ranks: Ranks = ALONE,
) -> Generator[tuple[int, int], None, EvalResult]:
    """`evaluate` in steps: yields (targets done, all targets) before each batch, and returns the result.

    A caller that leaves early must close the generator, so that the model is in its former mode again.
    """
    context_length = context_length or model.config.context_length
    batch_size = batch_size or max(1, TOKENS_AT_A_TIME // context_length)
    sums = torch.zeros(2, dtype=torch.float64, device=model.device)  # sum of the losses, number of targets
    done, all_targets, training = 0, count_targets(split, tokens), model.training
    model.eval()
    try:
        for idx_BT, targets_BT in split_batches(split, batch_size, context_length, tokens, stride):
            yield done, all_targets
            done += int((targets_BT != IGNORE_INDEX).sum())
            idx_BT, targets_BT = (ranks.rows(part) for part in _padded(idx_BT, targets_BT, ranks.world_size))
            n = (targets_BT != IGNORE_INDEX).sum()
            with torch.no_grad(), autocast(model.device, precision):
                _, loss = model(idx_BT.to(model.device), targets_BT.to(model.device), return_logits=False)
            n = n.to(model.device)
            sums += torch.stack((loss.double() * n, n))
    finally:
        model.train(training)
    total, count = ranks.all_reduce_sum(sums).tolist()
    return eval_result(split, total / count, int(count), context_length, require_stride(stride, context_length))


def eval_result(split: TokenSplit, mean: float, count: int, context_length: int, stride: int) -> EvalResult:
    """Return the result for a mean loss over `count` targets of `split`."""
    bits_per_byte = mean * split.n_tokens / (math.log(2) * split.n_bytes)
    return EvalResult(mean, bits_per_byte, count, round(split.n_bytes * count / split.n_tokens), context_length, stride)


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
    not overlap, from the first `tokens` targets of the split (at least one sequence). Isolated documents are cut into
    pieces of `length` targets, and positions that no document has are left out. Positions are grouped in ranges of
    doubling size, one of which ends at the context length of training. Raises `DataError` for a split that is shorter
    than one sequence.
    """
    trained = model.config.context_length
    length = length or trained
    if split.ends is None and split.n_tokens <= length:
        raise DataError(f"the {split.split} split has {split.n_tokens} tokens: length={length} needs {length + 1}")
    if split.ends is None:  # whole sequences only
        tokens = max(1, min(tokens, split.n_tokens - 1) // length) * length
    total_T, count_T = torch.zeros(2, length, dtype=torch.float64)
    for idx_BT, targets_BT in split_batches(split, max(1, TOKENS_AT_A_TIME // length), length, tokens):
        kept_BT, T = targets_BT != IGNORE_INDEX, idx_BT.shape[1]
        scores_BT = model.score(torch.cat([idx_BT[:, :1], targets_BT.clamp(min=0)], dim=1)).double().cpu()
        total_T[:T] -= scores_BT.where(kept_BT, 0.0).sum(dim=0)
        count_T[:T] += kept_BT.sum(dim=0)
    length = int(count_T.count_nonzero())  # of the longest row
    ranges = [slice(first - 1, last) for first, last in position_ranges(length, trained)]
    sums = [(float(total_T[part].sum()), int(count_T[part].sum())) for part in ranges]
    return [
        PositionLoss(part.start + 1, part.stop, total / n, n) for part, (total, n) in zip(ranges, sums, strict=True)
    ]


def position_ranges(length: int, trained: int) -> list[tuple[int, int]]:
    """Return (first, last) of ranges of doubling size that cover 1 to `length`; one ends at `trained`, if less."""
    ends = sorted({2**n for n in range(length.bit_length())} | {length} | ({trained} if trained < length else set()))
    return list(zip([1, *(end + 1 for end in ends[:-1])], ends, strict=True))
