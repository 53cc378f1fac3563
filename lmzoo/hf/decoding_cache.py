"""The decoding states of a batch as a cache of transformers, exact for every family, padded prompts included.

transformers pads short prompts, and names the padding by zeros in an attention mask. Models of lmzoo read no padding:
each row is read without it. Rows with equally many tokens share one state and are decoded together, so a batch costs
one call of the model per step and length of prompt. A state is a value, so that going back is keeping an earlier one.
Legend: B rows of the batch, N rows of a group, L columns with padding, T new columns, P tokens of a row, C of them new,
K last columns whose logits are wanted, V vocabulary.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers import Cache

from lmzoo.errors import InputError
from lmzoo.hf.padding import at
from lmzoo.model import LanguageModel
from lmzoo.state import State, select

_ROOM = 4096  # new tokens for which a state allocates memory at its start


@dataclass(frozen=True)
class _Group:
    """Rows with equally many tokens."""

    rows: tuple[int, ...]  # numbers in the batch
    tokens_NP: Tensor  # all tokens, those that `state` has not read yet included
    state: State | None = None  # None before the first token is read
    earlier: State | None = None  # an earlier state, while the cache records

    def unread(self) -> Tensor:
        """Returns the tokens that `state` has not read (N, U)."""
        return self.tokens_NP[:, _position(self.state) :]

    def taken(self, places: Sequence[int], rows: Sequence[int]) -> _Group:
        """Returns the rows at `places` of this group as rows `rows` of a batch."""
        if [*places] == [*range(len(self.rows))]:
            return replace(self, rows=tuple(rows))
        tokens_NP, state, earlier = select((self.tokens_NP, self.state, self.earlier), places)
        return _Group(tuple(rows), tokens_NP, state, earlier)

    def cropped(self, count: int) -> _Group:
        """Returns the group without its last `count` tokens, at the latest state that has not read them."""
        tokens_NP = self.tokens_NP[:, : self.tokens_NP.shape[1] - count]
        kept = [state for state in (self.state, self.earlier) if _position(state) <= tokens_NP.shape[1]]
        return _Group(self.rows, tokens_NP, kept[0] if kept else None)


def _position(state: State | None) -> int:
    return 0 if state is None else state["position"]


class DecodingCache(Cache):
    """The tokens that a batch has read so far; changed in place, as caches of transformers are.

    `max_len` is the number of tokens to allocate memory for; a longer text makes the states grow.
    """

    def __init__(self, max_len: int = 0) -> None:
        super().__init__(layers=[])
        self._max_len = max_len
        self._mask_BL: Tensor | None = None  # True for a token, False for padding
        self._groups: tuple[_Group, ...] = ()
        self._records = False

    # Reading ----------------------------------------------------------------------------------------------------------

    def extend(self, idx_BT: Tensor, mask_BT: Tensor | None) -> None:
        """Appends columns; they are read when logits are asked for. Without a mask, none of them is padding."""
        new_BT = torch.ones_like(idx_BT, dtype=torch.bool) if mask_BT is None else mask_BT
        if self._mask_BL is None:
            self._mask_BL = new_BT
            self._groups = (_Group(tuple(range(len(idx_BT))), idx_BT[:, :0]),)
        elif len(self._mask_BL) != len(idx_BT):
            raise InputError(f"input_ids has {len(idx_BT)} rows, past_key_values has {len(self._mask_BL)}")
        else:
            self._mask_BL = torch.cat([self._mask_BL, new_BT], dim=1)
        if mask_BT is not None:
            self._split(mask_BT.sum(dim=1).tolist())
        groups: list[_Group] = []
        for group in self._groups:
            new_NC = idx_BT[[*group.rows]]
            if mask_BT is not None:
                new_NC = new_NC[mask_BT[[*group.rows]]].view(len(group.rows), -1)
            groups.append(replace(group, tokens_NP=torch.cat([group.tokens_NP, new_NC], dim=1)))
        self._groups = tuple(groups)

    def read(self, model: LanguageModel, K: int) -> Tensor:
        """Reads all new columns; returns the logits of the last K of them (B, K, V).

        At padding they are those after the last token before it, or 0 if no token was read since the last call.
        """
        assert self._mask_BL is not None
        logits_BKV: Tensor | None = None
        groups: list[_Group] = []
        for group in self._groups:
            mask_NK = self._mask_BL[[*group.rows], self._mask_BL.shape[1] - K :]
            # At padding in front of these tokens, the one before them is wanted, too.
            wanted = int(mask_NK.sum(dim=1).max()) + (not bool(mask_NK.all()))
            if C := min(wanted, group.unread().shape[1]):
                group, logits_NCV = self._advanced(model, group, C)
                logits_NKV = _placed(logits_NCV, mask_NK)
                if len(group.rows) == len(self._mask_BL):
                    logits_BKV = logits_NKV
                else:
                    if logits_BKV is None:
                        logits_BKV = logits_NKV.new_zeros(len(self._mask_BL), *logits_NKV.shape[1:])
                    logits_BKV[[*group.rows]] = logits_NKV
            groups.append(group)
        self._groups = tuple(groups)
        if logits_BKV is None:
            return torch.zeros(len(self._mask_BL), K, model.config.vocab_size, device=model.device, dtype=model.dtype)
        return logits_BKV

    def _advanced(self, model: LanguageModel, group: _Group, C: int) -> tuple[_Group, Tensor]:
        """Reads all tokens of a group; returns it and the logits of the last C (N, C, V)."""
        unread_NU, state, earlier = group.unread(), group.state, group.state
        if state is None:
            length = unread_NU.shape[1]
            state = model.init_state(len(group.rows), max(length, min(self._max_len, length + _ROOM)))
        before = unread_NU.shape[1] - C
        if C == 1:
            logits_NV, state = model.decode(unread_NU, state)
            logits_NCV = logits_NV[:, None]
        else:
            if before > 0:  # without the logits of a long prompt in memory
                _, state = model.decode(unread_NU[:, :before], state)
                earlier = state
            logits_NCV, state = model.decode_all(unread_NU[:, before:], state)
        return replace(group, state=state, earlier=earlier if self._records else None), logits_NCV

    # Positions --------------------------------------------------------------------------------------------------------

    def mask(self) -> Tensor | None:
        """Returns the mask of the columns so far (B, L), True for a token; None before the first."""
        return self._mask_BL

    # Rows and columns, as transformers asks for them ------------------------------------------------------------------

    def _split(self, counts: Sequence[int]) -> None:
        """Splits the groups whose rows differ in `counts`, one number for each row of the batch."""
        groups: list[_Group] = []
        for group in self._groups:
            for count in sorted({counts[row] for row in group.rows}):
                places = [place for place, row in enumerate(group.rows) if counts[row] == count]
                groups.append(group.taken(places, [group.rows[place] for place in places]))
        self._groups = tuple(groups)

    def batch_select_indices(self, indices: Tensor | Sequence[int]) -> None:
        """Makes row `indices[i]` of the batch its row i; rows may repeat or be dropped."""
        if self._mask_BL is None:
            return
        wanted = torch.as_tensor(indices).tolist()
        self._mask_BL = self._mask_BL[wanted]
        groups: list[_Group] = []
        for group in self._groups:
            place_of = {row: place for place, row in enumerate(group.rows)}
            rows = [number for number, row in enumerate(wanted) if row in place_of]
            if rows:
                groups.append(group.taken([place_of[wanted[number]] for number in rows], rows))
        self._groups = tuple(groups)

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Keeps for each beam the row that it continues."""
        self.batch_select_indices(beam_idx)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeats each row."""
        self.batch_select_indices([row for row in range(self.batch_size) for _ in range(repeats)])

    def crop(self, tokens_to_remove: int) -> None:
        """Removes the last `-tokens_to_remove` columns; what was read after the state that is left is read again.

        Raises `InputError` for a positive number, as the caches of transformers do.
        """
        if tokens_to_remove > 0:
            raise InputError(f"tokens_to_remove={tokens_to_remove} must be 0 or below: -n removes the last n tokens")
        if self._mask_BL is None or tokens_to_remove == 0:
            return
        removed_BT = self._mask_BL[:, tokens_to_remove:]
        self._mask_BL = self._mask_BL[:, :tokens_to_remove]
        counts = removed_BT.sum(dim=1).tolist()
        self._split(counts)
        self._groups = tuple(group.cropped(counts[group.rows[0]]) for group in self._groups)

    def activate_past_recording(self) -> None:
        """Keeps the state before the newest tokens, too, so that `crop` need not read the whole text again."""
        self._records = True

    def reset(self) -> None:
        """Forgets everything."""
        self._mask_BL, self._groups = None, ()

    def get_seq_length(self, layer_idx: int = 0) -> int:  # noqa: ARG002 (there is one state for all layers)
        """Returns the number of columns so far, padding included."""
        return 0 if self._mask_BL is None else self._mask_BL.shape[1]

    def get_max_length(self, layer_idx: int | None = None) -> int:  # noqa: ARG002
        """Returns -1: there is no limit."""
        return -1

    @property
    def batch_size(self) -> int:
        """The number of rows; -1 before the first token."""
        return -1 if self._mask_BL is None else len(self._mask_BL)

    @property
    def is_croppable(self) -> bool:
        """True: `crop` leaves no trace."""
        return True

    def __len__(self) -> int:
        return 1  # of the states; 0 would make the cache count as False

    def __deepcopy__(self, memo: dict[int, Any]) -> DecodingCache:
        return copy.copy(self)  # its parts are values, which are replaced and never changed


def _placed(logits_NCV: Tensor, mask_NK: Tensor) -> Tensor:
    """Moves the logits of the last C tokens of each row to the columns (N, K) that follow or hold them."""
    C = logits_NCV.shape[1]
    if mask_NK.shape[1] == C and bool(mask_NK.all()):
        return logits_NCV
    later_NK = mask_NK.flip(1).cumsum(dim=1).flip(1) - mask_NK.long()  # tokens behind each column
    place_NK = C - 1 - later_NK
    return at(logits_NCV, place_NK.clamp(min=0)).masked_fill((place_NK < 0)[..., None], 0.0)
