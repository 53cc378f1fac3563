"""The simple recurrent network (Elman 1990), as a language model: Mikolov et al. 2010 (Interspeech).

Layers of `tanh(W x_t + U h_{t-1} + b)` over token embeddings (`lmzoo.layers.rnn`), with dropout between layers and
never between time steps. Distinctive: no gates. Each step multiplies the state by the same matrix, so over many steps
memory and gradient vanish or explode: the reason for the LSTM. There are no norms and no residual connections.
Deviations from both papers: tanh units instead of logistic ones, several layers, embeddings as wide as a layer, and
gradients through the whole sequence.
"""

from __future__ import annotations

from typing import Any

from lmzoo.cell_model import CellModel
from lmzoo.layers.rnn import RNN as Cells
from lmzoo.registry import register_model


@register_model("rnn")
class RNN(CellModel):
    """Layers of simple recurrent units, with dropout before, between and after them."""

    def make_cells(self, config: Any) -> Cells:
        return Cells(config.d_model)
