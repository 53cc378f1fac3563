"""Padding as transformers describes it, for models that read none: masks, positions, labels and the order of columns.

Legend: B rows, T new columns (tokens or padding), L all columns, K some of them, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lmzoo.errors import InputError
from lmzoo.losses import IGNORE_INDEX


def new_mask(idx_BT: Tensor, attention_mask: Tensor | None, past_BL: Tensor | None) -> Tensor | None:
    """Returns the part of `attention_mask` for the new columns, True for tokens; None if all of them are tokens.

    `past_BL` is the mask of the columns before them. Raises `InputError` for a mask that does not fit to both.
    """
    if attention_mask is None:
        return None
    B, T = idx_BT.shape
    past = 0 if past_BL is None else past_BL.shape[1]
    if attention_mask.shape != (B, past + T):
        shape = tuple(attention_mask.shape)
        raise InputError(f"attention_mask has shape {shape}: it must be {(B, past + T)}, earlier columns included")
    mask_BL = attention_mask.bool()
    if past_BL is not None and not torch.equal(mask_BL[:, :past], past_BL):
        raise InputError("attention_mask differs from the one with which past_key_values was made")
    mask_BT = mask_BL[:, past:]
    return None if bool(mask_BT.all()) else mask_BT


def check_positions(
    idx_BT: Tensor, position_ids: Tensor | None, mask_BT: Tensor | None, past_BL: Tensor | None
) -> None:
    """Raise `InputError` unless the positions, if given, are those that the model uses: the tokens of a row, from 0."""
    if position_ids is None:
        return
    mask_BT = torch.ones_like(idx_BT, dtype=torch.bool) if mask_BT is None else mask_BT
    before_B1 = 0 if past_BL is None else past_BL.sum(dim=1, keepdim=True)
    expected_BT = before_B1 + mask_BT.cumsum(dim=1) - 1
    fits = position_ids.ndim == 2 and position_ids.shape[1] == idx_BT.shape[1] and len(position_ids) in (1, len(idx_BT))
    if not fits or bool(((position_ids.to(idx_BT.device) != expected_BT) & mask_BT).any()):
        raise InputError("position_ids must count the tokens of each row from 0, without padding: others cannot be set")


def next_labels(labels_BT: Tensor, mask_BT: Tensor | None) -> Tensor:
    """Returns the target of each column, the label of the next one, or `IGNORE_INDEX`.

    The first token after padding has no target: there is nothing to predict it from.
    """
    targets_BT = nn.functional.pad(labels_BT[:, 1:], (0, 1), value=IGNORE_INDEX)
    if mask_BT is None:
        return targets_BT
    begins_BT = nn.functional.pad(mask_BT[:, 1:] & ~mask_BT[:, :-1], (0, 1))
    return targets_BT.masked_fill(begins_BT, IGNORE_INDEX)


def padding_last(idx_BT: Tensor, mask_BT: Tensor) -> tuple[Tensor, Tensor]:
    """Moves padding behind the tokens, which do not see it there, because the model is causal.

    Returns the ids (B, T), 0 for padding, whose own id may lie outside of the vocabulary; and the order (B, T) of the
    columns.
    """
    order_BT = (~mask_BT).long().argsort(dim=1, stable=True)
    return idx_BT.masked_fill(~mask_BT, 0).gather(1, order_BT), order_BT


def at(x_BTV: Tensor, place_BK: Tensor) -> Tensor:
    """Returns x[b, place[b, k]] as (B, K, V)."""
    return x_BTV.gather(1, place_BK[..., None].expand(-1, -1, x_BTV.shape[2]))
