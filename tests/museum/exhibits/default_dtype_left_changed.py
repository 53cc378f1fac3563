"""A forward changes torch's default dtype for a table, and does not change it back.

huggingface/transformers#28461, vllm-project/vllm#971, metatensor/metatrain#109.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lmzoo.state import State
from tests.museum.base import Transformer

CAUGHT_BY = "global_state"


class MODEL(Transformer):
    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        out = super().features(idx_BT, state)
        torch.set_default_dtype(torch.float64)
        return out
