"""An auxiliary loss is a mean over the targets that are not ignored, and NaN when there are none.

Similar to ml-explore/mlx-lm#1413 (windows without any target to train on).
"""

from __future__ import annotations

from torch import Tensor

from lmzoo.losses import IGNORE_INDEX
from tests.museum.base import Recurrent

CAUGHT_BY = "auxiliary"


class MODEL(Recurrent):
    def extra_losses(self, x_BTD: Tensor, idx: Tensor, targets: Tensor) -> dict[str, Tensor]:
        return {"size": 0.01 * x_BTD.square().mean(-1)[targets != IGNORE_INDEX].mean()}
