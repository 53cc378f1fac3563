"""The GRU language model (Cho et al. 2014, arXiv 1406.1078; Chung et al. 2014, arXiv 1412.3555).

Layers of gated recurrent units over token embeddings (`lmzoo.layers.gru`), with dropout between layers and never
between time steps. Distinctive: two gates and no separate memory cell, so one vector per layer is the whole decoding
state, with three quarters of the LSTM's weights. There are no norms and no residual connections. Deviation: the reset
gate is applied after the recurrent product, as in torch.nn.GRU and cuDNN; in the paper it is applied before.
"""

from __future__ import annotations

from typing import Any

from lmzoo.cell_model import CellModel
from lmzoo.layers.gru import GRU as Cells
from lmzoo.registry import register_model


@register_model("gru")
class GRU(CellModel):
    """Layers of gated recurrent units, with dropout before, between and after them."""

    def make_cells(self, config: Any) -> Cells:
        return Cells(config.d_model)
