"""The fingerprint of a saved model: some logits of a fixed input, which the loaded model must give again.

A model is rebuilt from its family, its config and its weights. Anything else that was changed after it was built, such
as an activation or a window, is lost without a trace in these; only the logits show it.
"""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lmzoo.errors import CheckpointError

if TYPE_CHECKING:
    from lmzoo.model import LanguageModel

MAX_TOKENS = 256  # length of the input: a window that is shorter shows in the logits
_POSITIONS, _TOKENS = 8, 8  # positions and vocabulary entries whose logits are kept, evenly spaced

# The largest difference that is accepted, as a share of the largest logit. Another machine sums in another order, which
# changes the last digits of float32; the number of layers and large weights can make more of that.
_TOLERANCE = 1e-3


def fingerprint(model: LanguageModel) -> list[list[float]] | None:
    """Returns logits of a fixed input in eval mode; None for a model that cannot run here or whose logits are not
    finite.
    """
    logits = _logits(model)
    return logits.tolist() if logits is not None and bool(logits.isfinite().all()) else None


def check(model: LanguageModel, saved: object, where: Path) -> None:
    """Raise `CheckpointError` if the logits of a loaded model differ from the fingerprint `saved` in the file `where`.

    A model that cannot run on this machine is not checked.
    """
    logits = _logits(model)
    if logits is None:
        return
    wanted = _read(saved, logits.shape, where)
    difference = float((logits - wanted).abs().nan_to_num(nan=math.inf).max())
    limit = _TOLERANCE * float(wanted.abs().max())
    if difference > limit:
        raise CheckpointError(
            f"{where}: the logits of the loaded model differ by {difference:.2g} from those of the saved one (allowed "
            f"{limit:.1g}): a part of it was changed after it was built, such as an activation or a window, and its "
            "config does not record that"
        )


@torch.no_grad()
def _logits(model: LanguageModel) -> Tensor | None:
    """Returns the kept logits (positions, tokens) in float64, or None if the model cannot run on this machine.

    A model with weights of 16 bits runs as a copy in float32: in its own dtype, the logits of two machines can differ
    by as much as those of two models.
    """
    T, V = min(model.config.context_length, MAX_TOKENS), model.config.vocab_size
    idx_BT = torch.tensor([_ids(T, V)], device=model.device)
    modes = {module: module.training for module in model.modules()}
    precision = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("highest")
        twin = copy.deepcopy(model).float() if model.dtype in (torch.float16, torch.bfloat16) else model
        with torch.autocast(model.device.type, enabled=False):
            logits_BTV, _ = twin.eval()(idx_BT)
    except RuntimeError:  # an operation that this machine lacks, or too little memory
        return None
    finally:
        torch.set_float32_matmul_precision(precision)
        for module, mode in modes.items():
            module.training = mode
    return logits_BTV[0, _evenly(T, _POSITIONS)][:, _evenly(V, _TOKENS)].double().cpu()


def _ids(T: int, V: int) -> list[int]:
    """Returns T token ids of a linear congruential generator, the same on every machine and version of torch."""
    state, ids = 1, list[int]()
    for _ in range(T):
        state = (1103515245 * state + 12345) % 2**31
        ids.append((state >> 8) % V)
    return ids


def _evenly(size: int, count: int) -> list[int]:
    """Returns at most `count` evenly spaced indices below `size`, the first and the last one among them."""
    return sorted({index * (size - 1) // max(1, count - 1) for index in range(count)})


def _read(saved: object, shape: torch.Size, where: Path) -> Tensor:
    """Returns the saved logits. Raises `CheckpointError` unless they are finite numbers of this shape."""
    rows = saved if isinstance(saved, list) else []
    try:
        numbers = torch.tensor(rows, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        numbers = torch.empty(0)
    if numbers.shape != shape or not bool(numbers.isfinite().all()):
        raise CheckpointError(f"{where}: fingerprint must be {shape[0]} lists of {shape[1]} finite numbers")
    return numbers
