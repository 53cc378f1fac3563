"""A second head predicts the token after the next, in training only, through a named loss.

Multi-token prediction (Gloeckle et al. 2024, arXiv 2404.19737).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from lmzoo.layers.linear import Linear
from lmzoo.losses import IGNORE_INDEX
from tests.museum.base import CellConfig, Recurrent


class MODEL(Recurrent):
    def __init__(self, config: CellConfig) -> None:
        super().__init__(config)
        self.second_head = Linear(config.d_model, config.vocab_size, bias=False)

    def calls(self, T: int) -> dict[str, tuple[float, int]]:
        """Returns how often the second head runs outside training: never."""
        return {"second_head": (0.0, T)}

    def extra_losses(self, x_BTD: Tensor, idx: Tensor, targets: Tensor) -> dict[str, Tensor]:
        later_BT = F.pad(targets[:, 1:], (0, 1), value=IGNORE_INDEX)
        logits_BTV = self.second_head(x_BTD)
        total = F.cross_entropy(
            logits_BTV.flatten(0, 1), later_BT.flatten(), ignore_index=IGNORE_INDEX, reduction="sum"
        )
        return {"second": 0.3 * total / (later_BT != IGNORE_INDEX).sum().clamp(min=1)}
