"""The LSTM language model (Hochreiter & Schmidhuber 1997; Zaremba, Sutskever & Vinyals 2014, arXiv 1409.2329).

Layers of LSTM cells over token embeddings (`lmzoo.layers.lstm`), with dropout between layers and never between time
steps (Zaremba et al.). Distinctive: its decoding state is two vectors per layer, (h, c), whatever the length. There
are no norms and no residual connections.
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
from lmzoo.layers.lstm import LSTM as Cells
from lmzoo.layers.stack import Stack
from lmzoo.model import ModelConfig
from lmzoo.registry import register_model


@dataclass(frozen=True, kw_only=True)
class LSTMConfig(ModelConfig):
    """The LSTM's sizes, in addition to `ModelConfig`."""

    scaled: ClassVar[dict[str, int]] = {"d_model": 1}

    d_model: int = 128  # width of the embeddings and of every layer
    n_layers: int = 2  # layers of LSTM cells
    dropout: float = 0.0  # share of the features set to zero between the layers in training

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "d_model", "n_layers")
        require_between(self, "dropout", 0, 1, below_high=True)


@register_model("lstm")
class LSTM(Decoder):
    """Layers of LSTM cells, with dropout before, between and after them."""

    config_class = LSTMConfig

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
