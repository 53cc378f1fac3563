"""The loss of a text whose context is carried: each window begins with the state that the window before it has left.

So a prediction sees all earlier text of its row, as in one forward pass over the row, in the memory of a window and a
state. A row is an isolated document; joined documents are cut into a few rows of equal length, which are read side by
side. Each row begins with an empty state. Only models that extrapolate can be read so.

Legend: R rows of the text, B rows of a batch, W tokens of a window, N targets of the split.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from lmzoo import bounds, state
from lmzoo.data.documents import Pieces, count_targets, cut, padded, row_tensors, split_windows
from lmzoo.data.store import TokenSplit
from lmzoo.errors import ConfigError
from lmzoo.losses import IGNORE_INDEX
from lmzoo.model import LanguageModel
from lmzoo.train.evaluate import TOKENS_AT_A_TIME, EvalResult, eval_result, evaluate
from lmzoo.train.precision import autocast
from lmzoo.train.token_losses import target_losses

ContextUse = Literal["reset", "carried"]

MOST_ROWS = 8  # of joined documents
LEAST_WINDOWS = 64  # of each of these rows, so that the empty states at their beginnings hardly matter
STATE_TOKENS = 1 << 17  # tokens that the states of a batch hold


def rows_of(split: TokenSplit, context_length: int) -> Pieces:
    """Return the rows in which the context is carried: the isolated documents, or parts of the joined text."""
    if split.ends is not None:
        return cut(split.ends, int(max(1, *np.diff(split.ends, prepend=0))))
    targets = count_targets(split)
    longest = -(-targets // max(1, min(MOST_ROWS, targets // (LEAST_WINDOWS * context_length))))
    start_R = np.arange(0, targets, longest)
    return Pieces(start_R, np.minimum(longest, targets - start_R))


def require_context(context: object, stride: int | None) -> None:
    """Raise `ConfigError` unless `context` is a `ContextUse`, which for "carried" allows no stride."""
    if context not in get_args(ContextUse):
        raise ConfigError(f"context={context!r} must be one of: {', '.join(get_args(ContextUse))}")
    if context == "carried" and stride is not None:
        raise ConfigError(f"stride={stride} cannot be given: windows whose context is carried do not overlap")


def require_carried(name: str, model: LanguageModel, split: TokenSplit, device: torch.device) -> None:
    """Raise `ConfigError` for a model without a context to carry, `InputError` for a state that does not fit in memory.

    `name` stands in the message. The state will be on `device`; the model may be on the meta device.
    """
    length = model.config.context_length
    if not model.traits.extrapolates:
        raise ConfigError(
            f"context='carried' cannot be given: {name} sees at most context_length={length} tokens (with a smaller "
            "stride its predictions see more of them)"
        )
    if model.init_state(1, 1)["layers"] is None:
        raise ConfigError(f"context='carried' cannot be given: {name} has no state, it reads all tokens in each step")
    rows = next(_batches(split, length))
    longest = int(rows.targets_N[0])
    what = f"context='carried': the state of {name} for {len(rows)} x {longest:,} tokens"
    bounds.require_memory(what, len(rows) * model.state_bytes(longest), device)


def evaluate_text(
    model: LanguageModel,
    split: TokenSplit,
    *,
    context: ContextUse = "reset",
    stride: int | None = None,
    precision: str = "float32",
) -> EvalResult:
    """Evaluate a text whose context is reset at each window (`lmzoo.train.evaluate`), or carried."""
    if context == "carried":
        return evaluate_carried(model, split, precision=precision)
    return evaluate(model, split, stride=stride, precision=precision)


def evaluate_carried(model: LanguageModel, split: TokenSplit, *, precision: str = "float32") -> EvalResult:
    """Compute the mean loss over all targets of `split`; the rest as in `lmzoo.train.evaluate`."""
    loss_N = carried_losses(model, split, precision=precision)
    length = model.config.context_length
    result = eval_result(split, float(loss_N.mean(dtype=np.float64)), loss_N.size, length, length)
    return replace(result, context="carried")


def carried_losses(model: LanguageModel, split: TokenSplit, *, precision: str = "float32") -> NDArray[np.float32]:
    """Compute the loss of each target of `split`, in the order of `split_windows` for the model's context length."""
    found = np.zeros(split.n_tokens, np.float32)  # by the place of the target in the text
    training = model.training
    model.eval()
    try:
        for pieces in _batches(split, model.config.context_length):
            for place_BW, loss_BW in _batch_losses(model, split.tokens, pieces, precision):
                found[place_BW] = loss_BW
    finally:
        model.train(training)
    return found[_targets(split, model.config.context_length)]


def _batches(split: TokenSplit, context_length: int) -> Iterator[Pieces]:
    """Yield batches of rows, the longest rows first."""
    pieces = rows_of(split, context_length)
    if split.ends is None:
        yield pieces
        return
    order_R = np.argsort(-pieces.targets_N, kind="stable")
    most = max(1, TOKENS_AT_A_TIME // context_length)
    while len(order_R):
        size = max(1, min(most, STATE_TOKENS // int(pieces.targets_N[order_R[0]])))
        yield Pieces(pieces.start_N[order_R[:size]], pieces.targets_N[order_R[:size]])
        order_R = order_R[size:]


def _batch_losses(
    model: LanguageModel, tokens: NDArray[np.integer], pieces: Pieces, precision: str
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Yield the places of the targets of each window, and their losses; rows that have ended are left out."""
    width, longest = model.config.context_length, int(pieces.targets_N[0])
    rows = len(pieces)
    layers = model.init_state(rows, longest)["layers"]
    for start in range(0, longest, width):
        left_B = pieces.targets_N[pieces.targets_N > start] - start  # in descending order, so the first rows go on
        if len(left_B) < rows:
            rows = len(left_B)
            layers = state.select(layers, range(rows))
        targets_B, start_B = np.minimum(left_B, width), pieces.start_N[:rows] + start
        idx_BW, targets_BW = row_tensors(padded(tokens, start_B, targets_B, int(targets_B[0])))
        with torch.no_grad(), autocast(model.device, precision):
            x_BWD, layers = model.features(idx_BW.to(model.device), layers)
            loss_BW = target_losses(model, x_BWD, targets_BW.to(model.device)).float().cpu()
        place_BW = start_B[:, None] + np.arange(1, targets_BW.shape[1] + 1)
        kept_BW = (targets_BW != IGNORE_INDEX).numpy()
        yield place_BW[kept_BW], loss_BW.numpy()[kept_BW]


def _targets(split: TokenSplit, context_length: int) -> NDArray[np.int64]:
    """Return the places of all targets in the order of `split_windows`."""
    places = replace(split, tokens=np.arange(split.n_tokens))
    windows = split_windows(places, max(1, TOKENS_AT_A_TIME // context_length), context_length)
    return np.concatenate([targets_BT[counted_BT].numpy() for _, targets_BT, counted_BT in windows])
