"""WaveNet over tokens (van den Oord et al. 2016, arXiv 1609.03499): a stack of dilated causal convolutions.

Distinctive: no recurrence and no attention. Dilations 1, 2, 4, ... let the number of tokens that are seen double with
each layer; the cycle is then repeated. Each layer (`lmzoo.layers.gated_conv`) multiplies a filter by a gate and has two
outputs: a residual to the next layer and a skip connection; the sum of all skips is the input of the readout.
Deviations: an embedding in place of the causal convolution over one-hot inputs; no conditioning; the last layer has no
residual output, which would have no effect.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from lmzoo.configs import require_at_most, require_positive, set_default
from lmzoo.decoder import Decoder, DecoderState
from lmzoo.layers.gated_conv import GatedConv
from lmzoo.layers.init import normal, uniform_fan_in
from lmzoo.layers.linear import Embedding, Linear
from lmzoo.layers.stack import Stack
from lmzoo.model import ModelConfig
from lmzoo.registry import register_model


@dataclass(frozen=True, kw_only=True)
class CNNConfig(ModelConfig):
    """The sizes of WaveNet, in addition to `ModelConfig`."""

    scaled: ClassVar[dict[str, int]] = {"d_model": 8, "d_skip": 8}

    d_model: int = 128  # width of the embeddings and of the residual path
    d_skip: int | None = None  # width of the skip connections and of the readout; None: d_model
    n_layers: int = 8  # number of convolutions
    d_conv: int = 2  # length of the convolution's filters
    cycle: int = 8  # the dilations are 1, 2, 4, ..., 2^(cycle - 1), and then 1 again

    def __post_init__(self) -> None:
        super().__post_init__()
        set_default(self, "d_skip", self.d_model)
        require_positive(self, "d_model", "d_skip", "n_layers", "d_conv", "cycle")
        require_at_most(self, 20, "cycle")


@register_model("cnn")
class CNN(Decoder):
    """Gated convolutions, whose skip connections are summed, and a readout of two layers."""

    config_class = CNNConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.mix = Linear(config.d_skip, config.d_skip, init=uniform_fan_in())

    def block(self, config: Any, layer: int) -> Stack:
        dilation, last = 2 ** (layer % config.cycle), layer == config.n_layers - 1
        return Stack([GatedConv(config.d_model, config.d_skip, config.d_conv, dilation, last=last)])

    def make_embedding(self, config: Any) -> Embedding:
        return Embedding(config.vocab_size, config.d_model, init=normal(1.0))

    def make_norm(self, config: Any) -> nn.Module:
        return nn.Identity()

    def make_head(self, config: Any) -> Linear:
        return Linear(config.d_skip, config.vocab_size)

    def features(self, idx_BT: Tensor, state: DecoderState | None = None) -> tuple[Tensor, DecoderState | None]:
        skips_BTS, state = super().features(idx_BT, state)
        return F.relu(self.mix(F.relu(skips_BTS))), state
