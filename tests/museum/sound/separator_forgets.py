"""Token 0 separates documents: it sets the memory back to zero, so what matters depends on the text.

Document masking (Dubey et al. 2024, arXiv 2407.21783, section 3.2); similar to state-spaces/mamba#244.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lmzoo.layers.linear import Linear
from lmzoo.layers.norm import RMSNorm
from lmzoo.state import State
from tests.museum.base import CellConfig, Recurrent


class DocumentCell(nn.Module):
    """h = keep f h + (1 - f) c, where keep is 0 at the first token of a document and 1 at the others."""

    def __init__(self, config: CellConfig) -> None:
        super().__init__()
        self.norm = RMSNorm(config.d_model)
        self.gates = Linear(config.d_model, 2 * config.d_model)
        self.out = Linear(config.d_model, config.d_model, bias=False)

    def init_state(self, B: int, like: Tensor) -> Tensor:
        return like.new_zeros(B, self.norm.normalized_shape[0])

    def forward(self, x_BTD: Tensor, h_BD: Tensor, keep_BT: Tensor) -> tuple[Tensor, Tensor]:
        f_BTD, c_BTD = self.gates(self.norm(x_BTD)).chunk(2, dim=-1)
        f_BTD, c_BTD, hs = torch.sigmoid(f_BTD), torch.tanh(c_BTD), []
        carried_BTD, added_BTD = keep_BT[..., None] * f_BTD, (1 - f_BTD) * c_BTD
        for t in range(x_BTD.shape[1]):
            h_BD = carried_BTD[:, t] * h_BD + added_BTD[:, t]
            hs.append(h_BD)
        return x_BTD + self.out(torch.stack(hs, dim=1)), h_BD


class MODEL(Recurrent):
    cell_class = DocumentCell

    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        x_BTD, after = self.tokens(idx_BT), []
        given = self.init_layers(len(idx_BT), 0, x_BTD) if state is None else state
        for cell, piece in zip(self.cells, given, strict=True):
            x_BTD, piece = cell(x_BTD, piece, (idx_BT != 0).to(x_BTD.dtype))
            after.append(piece)
        return self.norm(x_BTD), None if state is None else after
