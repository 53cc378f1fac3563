"""The constructor sets torch's global seed, so that what the caller draws next is always the same.

online-ml/deep-river#172, similar to vislearn/FrEIA#49.
"""

from __future__ import annotations

import torch

from tests.museum.base import CellConfig, Recurrent

CAUGHT_BY = "seeds"


class MODEL(Recurrent):
    def __init__(self, config: CellConfig) -> None:
        torch.manual_seed(1337)
        super().__init__(config)
