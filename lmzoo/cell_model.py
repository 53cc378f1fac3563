"""The frame of the classic recurrent networks: token embedding, layers of cells with dropout, head.

Without norms and residual connections, as in Zaremba, Sutskever & Vinyals 2014 (arXiv 1409.2329): dropout lies between
layers and never between time steps. Legend: B batch, T time, D width.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from lmzoo.configs import require_between, require_positive
from lmzoo.decoder import Decoder
from lmzoo.layers.context import Context
from lmzoo.layers.dropout import Dropout
from lmzoo.layers.init import normal
from lmzoo.layers.linear import Embedding, Linear
from lmzoo.layers.stack import Stack
from lmzoo.model import ModelConfig


@dataclass(frozen=True, kw_only=True)
class CellConfig(ModelConfig):
    """The sizes of a `CellModel`, in addition to `ModelConfig`."""

    scaled: ClassVar[dict[str, int]] = {"d_model": 1}

    d_model: int = 128  # width of the embeddings and of every layer
    n_layers: int = 2  # layers of cells
    dropout: float = 0.0  # share of the features set to zero between the layers in training

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "d_model", "n_layers")
        require_between(self, "dropout", 0, 1, below_high=True)


class CellModel(Decoder):
    """Layers of recurrent cells, with dropout before, between and after them. A subclass gives the layer."""

    config_class: ClassVar[type[ModelConfig]] = CellConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.dropout = Dropout(config.dropout)

    @abstractmethod
    def make_cells(self, config: Any) -> nn.Module:
        """Returns a layer of cells, (B, T, D) to (B, T, D): a `lmzoo.layers.layer.Layer`."""

    def block(self, config: Any, layer: int) -> Stack:
        return Stack([self.make_cells(config), Dropout(config.dropout)])

    def make_embedding(self, config: Any) -> Embedding:
        return Embedding(config.vocab_size, config.d_model, init=normal(1.0))

    def embed(self, idx_BT: Tensor, ctx: Context) -> Tensor:
        return self.dropout(self.tokens(idx_BT))

    def make_norm(self, config: Any) -> nn.Module:
        return nn.Identity()

    def make_head(self, config: Any) -> Linear:
        return Linear(config.d_model, config.vocab_size, init=normal(config.d_model**-0.5))
