"""A router adds noise in evaluation too: the same input gives different logits.

huggingface/transformers#43362 (results that change from run to run).
"""

from __future__ import annotations

import torch
from torch import Tensor

from lmzoo.state import State
from tests.museum.base import Transformer

CAUGHT_BY = "same_seed"


class MODEL(Transformer):
    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        x_BTD, state = super().features(idx_BT, state)
        return x_BTD * (1 + 1e-3 * torch.rand_like(x_BTD)), state
