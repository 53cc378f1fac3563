"""The neural probabilistic language model (Bengio, Ducharme, Vincent & Jauvin 2003, JMLR 3:1137).

    y = b + U tanh(d + H x) (+ W x),    x = the embeddings of the last `window` tokens, concatenated

The first neural language model with learned word embeddings. Distinctive: each position in the window has its own
weights, and tokens outside the window have no effect. The direct connection W is optional, as in the paper.
Deviations: W is off by default (the paper found that it trains faster but is no better, and it costs window * d_model *
vocab_size weights); positions before the first token have one learned padding embedding; initial hidden weights are
N(0, 1/fan_in) times 5/3, the usual factor for tanh.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lmzoo.configs import require_positive
from lmzoo.layers.init import normal
from lmzoo.layers.linear import Embedding, Linear
from lmzoo.model import LanguageModel, ModelConfig, Traits
from lmzoo.registry import register_model
from lmzoo.state import State


@dataclass(frozen=True, kw_only=True)
class MLPConfig(ModelConfig):
    """The window, widths and options, in addition to `ModelConfig`."""

    scaled: ClassVar[dict[str, int]] = {"d_model": 1, "d_ff": 1}

    d_model: int = 24  # width of a token's embedding
    d_ff: int = 288  # number of tanh units
    window: int = 12  # tokens seen, the present one included
    direct: bool = False  # the paper's W: a direct connection from the embeddings to the output

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "d_model", "d_ff", "window")


@register_model("mlp")
class MLP(LanguageModel):
    """The features are tanh(d + Hx), with `direct` concatenated with x; the head holds U (and W) and b."""

    config_class = MLPConfig
    config: MLPConfig

    def __init__(self, config: MLPConfig) -> None:
        super().__init__(config)
        width = config.window * config.d_model
        self.tokens = Embedding(config.vocab_size + 1, config.d_model, init=normal(1.0))  # the last row is the padding
        self.hidden = Linear(width, config.d_ff, init=normal(5 / 3 / math.sqrt(width)))
        self.head = Linear(config.d_ff + (width if config.direct else 0), config.vocab_size, init=normal(0.005))

    @property
    def traits(self) -> Traits:
        return Traits(extrapolates=True, receptive_field=self.config.window, state_growth="constant")

    def init_layers(self, batch_size: int, max_len: int, like: Tensor) -> Tensor:
        """Returns the `window - 1` padding tokens before the first token."""
        shape = (batch_size, self.config.window - 1)
        return torch.full(shape, self.config.vocab_size, dtype=torch.long, device=like.device)

    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        before = self.init_layers(idx_BT.shape[0], 0, idx_BT) if state is None else state
        seen = torch.cat([before, idx_BT], dim=1)
        # Windows are cut from the embeddings, not from the tokens, so that each token is looked up once.
        windows_BTDW = self.tokens(seen).unfold(1, self.config.window, 1)
        x_BTX = windows_BTDW.transpose(2, 3).flatten(2)
        y_BTF = torch.tanh(self.hidden(x_BTX))
        if self.config.direct:
            y_BTF = torch.cat([y_BTF, x_BTX], dim=-1)
        return y_BTF, None if state is None else seen[:, idx_BT.shape[1] :].clone()
