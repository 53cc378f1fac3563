"""The model overrides `generate`, and starts from the last token of the prompt instead of the whole prompt.

Similar to ml-explore/mlx-lm#93 (generation with a cache that had lost its position).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tests.museum.base import Transformer

CAUGHT_BY = "generation"


class MODEL(Transformer):
    def generate(self, idx: Tensor, max_new_tokens: int, **settings: Any) -> Tensor:
        return torch.cat([idx[:, :-1], super().generate(idx[:, -1:], max_new_tokens, **settings)], dim=1)
