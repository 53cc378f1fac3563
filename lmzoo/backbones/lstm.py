"""The LSTM language model (Hochreiter & Schmidhuber 1997; Zaremba, Sutskever & Vinyals 2014, arXiv 1409.2329).

Layers of LSTM cells over token embeddings (`lmzoo.layers.lstm`), with dropout between layers and never between time
steps (Zaremba et al.). Distinctive: its decoding state is two vectors per layer, (h, c), whatever the length. There
are no norms and no residual connections.
"""

from __future__ import annotations

from typing import Any

from lmzoo.cell_model import CellModel
from lmzoo.layers.lstm import LSTM as Cells
from lmzoo.registry import register_model


@register_model("lstm")
class LSTM(CellModel):
    """Layers of LSTM cells, with dropout before, between and after them."""

    def make_cells(self, config: Any) -> Cells:
        return Cells(config.d_model)
