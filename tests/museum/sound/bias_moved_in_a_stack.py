"""A stack of layers whose router has a bias that each training pass moves: running a layer again finds it moved.

Balancing without an auxiliary loss (Wang et al. 2024, arXiv 2408.15664), in layers that can be recomputed.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lmzoo.decoder import Decoder, DecoderConfig
from lmzoo.layers.layer import Layer
from lmzoo.layers.linear import Linear
from lmzoo.layers.norm import RMSNorm


class Balanced(Layer):
    """Each token takes one of three experts, which are parts of one dense map."""

    reach = 1
    bias_E: Tensor

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.norm, self.router = RMSNorm(d_model), Linear(d_model, 3, bias=False)
        self.experts = Linear(d_model, 3 * d_model)
        self.register_buffer("bias_E", torch.zeros(3))

    def init_parameters(self, generator: torch.Generator | None = None) -> None:
        super().init_parameters(generator)
        self.bias_E.zero_()

    def forward(self, x_BTD: Tensor) -> Tensor:
        u_BTD = self.norm(x_BTD)
        p_BTE = self.router(u_BTD).softmax(-1)
        chosen_BTE = nn.functional.one_hot((p_BTE + self.bias_E).argmax(-1), 3)
        if self.training:
            with torch.no_grad():
                load_E = chosen_BTE.to(self.bias_E.dtype).mean((0, 1))
                self.bias_E -= 3e-2 * (load_E - load_E.mean()).sign()
        y_BTED = torch.tanh(self.experts(u_BTD)).unflatten(-1, (3, -1))
        return x_BTD + ((p_BTE * chosen_BTE)[..., None] * y_BTED).sum(2)


class MODEL(Decoder):
    config_class = DecoderConfig

    def block(self, config: DecoderConfig, layer: int) -> nn.Module:
        return Balanced(config.d_model)
