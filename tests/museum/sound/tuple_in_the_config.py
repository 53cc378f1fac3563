"""The dilation of each layer stands in a tuple in the config, which has no `n_layers`; JSON makes it a list.

WaveNet (van den Oord et al. 2016, arXiv 1609.03499); similar to stardist/stardist#97 (a tuple that comes back as a
list from a saved config).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lmzoo.layers.head import make_head
from lmzoo.layers.linear import Embedding, Linear
from lmzoo.layers.norm import RMSNorm
from lmzoo.model import LanguageModel, ModelConfig, Traits
from lmzoo.state import State


@dataclass(frozen=True, kw_only=True)
class DilatedConfig(ModelConfig):
    d_model: int = 16
    dilations: tuple[int, ...] = (1, 2, 4)


class DilatedLayer(nn.Module):
    """x + a map of the present token and of the one `dilation` before it."""

    def __init__(self, d_model: int, dilation: int) -> None:
        super().__init__()
        self.dilation = dilation
        self.norm = RMSNorm(d_model)
        self.taps, self.out = Linear(2 * d_model, d_model), Linear(d_model, d_model)

    def forward(self, x_BTD: Tensor, tail_BWD: Tensor) -> tuple[Tensor, Tensor]:
        T = x_BTD.shape[1]
        padded_BTD = torch.cat([tail_BWD, self.norm(x_BTD)], dim=1)
        both_BTE = torch.cat([padded_BTD[:, :T], padded_BTD[:, self.dilation :]], dim=-1)
        return x_BTD + self.out(torch.tanh(self.taps(both_BTE))), padded_BTD[:, T:].clone()


class MODEL(LanguageModel):
    config_class = DilatedConfig
    config: DilatedConfig

    def __init__(self, config: DilatedConfig) -> None:
        super().__init__(config)
        self.tokens = Embedding(config.vocab_size, config.d_model)
        self.layers = nn.ModuleList(DilatedLayer(config.d_model, dilation) for dilation in config.dilations)
        self.norm = RMSNorm(config.d_model)
        self.head = make_head(self.tokens, tied=False)

    @property
    def traits(self) -> Traits:
        return Traits(extrapolates=True, receptive_field=1 + sum(self.config.dilations), state_growth="constant")

    def init_layers(self, batch_size: int, max_len: int, like: Tensor) -> State:
        return [like.new_zeros(batch_size, dilation, self.config.d_model) for dilation in self.config.dilations]

    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        x_BTD, after = self.tokens(idx_BT), []
        given = self.init_layers(len(idx_BT), 0, x_BTD) if state is None else state
        for layer, tail in zip(self.layers, given, strict=True):
            x_BTD, tail = layer(x_BTD, tail)
            after.append(tail)
        return self.norm(x_BTD), None if state is None else after
