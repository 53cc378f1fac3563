"""A model that promises each row the same bits in any batch, and rounds by the size of the batch.

Ours: whoever relies on the promise (an evaluation in batches, say) compares figures that differ.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from lmzoo.model import Traits
from lmzoo.state import State

from ..base import Transformer

CAUGHT_BY = "batch_independence"


class MODEL(Transformer):
    @property
    def traits(self) -> Traits:
        return replace(super().traits, batch_exact=True)

    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        x_BTD, state = super().features(idx_BT, state)
        return x_BTD * (1 + 1e-6 * idx_BT.shape[0]), state  # as a product that sums in another order for more rows
