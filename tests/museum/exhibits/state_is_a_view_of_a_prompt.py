"""After a prompt, the state holds its last token as a view of the caller's tensor; after one token it holds a copy.

Ours: the next token replaces the view, so a mistake shows at the first step after the prompt alone.
"""

from __future__ import annotations

from torch import Tensor

from lmzoo.state import State
from tests.museum.exhibits import state_is_a_view_of_the_tokens

CAUGHT_BY = "state_is_a_value"


class MODEL(state_is_a_view_of_the_tokens.MODEL):
    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        x_BTD, after = super().features(idx_BT, state)
        return x_BTD, after if after is None or idx_BT.shape[1] > 1 else [*after[:-1], after[-1].clone()]
