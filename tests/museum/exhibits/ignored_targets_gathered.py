"""The auxiliary loss gathers the log-probability of targets that may be ignored (-100), and ends with an error.

Ours: training on prompts with answers ignores the prompts, which random targets in a test do not show.
"""

from __future__ import annotations

from torch import Tensor

from tests.museum.base import Recurrent

CAUGHT_BY = "auxiliary"


class MODEL(Recurrent):
    def extra_losses(self, x_BTD: Tensor, idx: Tensor, targets: Tensor) -> dict[str, Tensor]:
        log_p_BTV = self.head(x_BTD[:, :-1]).log_softmax(-1)
        return {"ahead": -log_p_BTV.gather(-1, targets[:, 1:, None]).mean()}
