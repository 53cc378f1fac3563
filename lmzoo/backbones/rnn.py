"""The simple recurrent network (Elman 1990), as a language model: Mikolov et al. 2010 (Interspeech).

Layers of `tanh(W x_t + U h_{t-1} + b)` over token embeddings (`lmzoo.layers.rnn`), with dropout between layers and
never between time steps. Distinctive: no gates. Each step multiplies the state by the same matrix, so over many steps
memory and gradient vanish or explode: the reason for the LSTM. There are no norms and no residual connections.
Deviations from both papers: tanh units instead of logistic ones, several layers, embeddings as wide as a layer, and
gradients through the whole sequence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from lmzoo.configs import require_between, require_positive
from lmzoo.decoder import Decoder
from lmzoo.layers.context import Context
from lmzoo.layers.dropout import Dropout
from lmzoo.layers.init import normal
from lmzoo.layers.linear import Embedding, Linear
from lmzoo.layers.rnn import RNN as Cells
from lmzoo.layers.stack import Stack
from lmzoo.model import ModelConfig
from lmzoo.registry import register_model


@dataclass(frozen=True, kw_only=True)
class RNNConfig(ModelConfig):
    """The RNN's sizes, in addition to `ModelConfig`."""

    scaled: ClassVar[dict[str, int]] = {"d_model": 1}

    d_model: int = 128  # width of the embeddings and of every layer
    n_layers: int = 2  # layers of simple recurrent units
    dropout: float = 0.0  # share of the features set to zero between the layers in training

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "d_model", "n_layers")
        require_between(self, "dropout", 0, 1, below_high=True)


@register_model("rnn")
class RNN(Decoder):
    """Layers of simple recurrent units, with dropout before, between and after them."""

    config_class = RNNConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.dropout = Dropout(config.dropout)

    def block(self, config: Any, layer: int) -> Stack:
        return Stack([Cells(config.d_model), Dropout(config.dropout)])

    def make_embedding(self, config: Any) -> Embedding:
        return Embedding(config.vocab_size, config.d_model, init=normal(1.0))

    def embed(self, idx_BT: Tensor, ctx: Context) -> Tensor:
        return self.dropout(self.tokens(idx_BT))

    def make_norm(self, config: Any) -> nn.Module:
        return nn.Identity()

    def make_head(self, config: Any) -> Linear:
        return Linear(config.d_model, config.vocab_size, init=normal(config.d_model**-0.5))
