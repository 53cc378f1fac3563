"""Token 0 separates documents: it sets the memory back to zero, so what matters depends on the text.

Document masking (Dubey et al. 2024, arXiv 2407.21783, section 3.2); similar to state-spaces/mamba#244.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lmzoo.state import State
from tests.museum.base import Recurrent


class MODEL(Recurrent):
    """Steps through the tokens; each cell's state is multiplied by 0 where a document begins."""

    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        embedded_BTD = self.tokens(idx_BT)
        pieces = self.init_layers(len(idx_BT), 0, embedded_BTD) if state is None else state
        outputs = []
        for t in range(idx_BT.shape[1]):
            x_B1D, after = embedded_BTD[:, t : t + 1], []
            kept_B = (idx_BT[:, t] != 0).to(x_B1D.dtype)
            for cell, piece in zip(self.cells, pieces, strict=True):
                kept = {"h": piece["h"] * kept_B[:, None], "tail": piece["tail"] * kept_B[:, None, None]}
                x_B1D, piece = cell(x_B1D, kept)
                after.append(piece)
            pieces = after
            outputs.append(x_B1D)
        return self.norm(torch.cat(outputs, dim=1)), None if state is None else pieces
