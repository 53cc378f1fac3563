"""The GRU language model (Cho et al. 2014, arXiv 1406.1078; Chung et al. 2014, arXiv 1412.3555).

Layers of gated recurrent units over token embeddings (`lmzoo.layers.gru`), with dropout between layers and never
between time steps. Distinctive: two gates and no separate memory cell, so one vector per layer is the whole decoding
state, with three quarters of the LSTM's weights. There are no norms and no residual connections. Deviation: the reset
gate is applied after the recurrent product, as in torch.nn.GRU and cuDNN; in the paper it is applied before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from lmzoo.configs import require_between, require_positive
from lmzoo.decoder import Decoder
from lmzoo.layers.context import Context
from lmzoo.layers.dropout import Dropout
from lmzoo.layers.gru import GRU as Cells
from lmzoo.layers.init import normal
from lmzoo.layers.linear import Embedding, Linear
from lmzoo.layers.stack import Stack
from lmzoo.model import ModelConfig
from lmzoo.registry import register_model


@dataclass(frozen=True, kw_only=True)
class GRUConfig(ModelConfig):
    """The GRU's sizes, in addition to `ModelConfig`."""

    scaled: ClassVar[dict[str, int]] = {"d_model": 1}

    d_model: int = 128  # width of the embeddings and of every layer
    n_layers: int = 2  # layers of gated recurrent units
    dropout: float = 0.0  # share of the features set to zero between the layers in training

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "d_model", "n_layers")
        require_between(self, "dropout", 0, 1, below_high=True)


@register_model("gru")
class GRU(Decoder):
    """Layers of gated recurrent units, with dropout before, between and after them."""

    config_class = GRUConfig

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
