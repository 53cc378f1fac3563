"""The standard residual stack, as a base class for trying out new mixers.

Most architectures since 2019 differ in one place: the mixer, the layer through which positions speak to each other. All
the rest is here, as in Llama: token embedding, blocks of `x + mixer(norm(x))` and `x + swiglu(norm(x))`, a final norm
and a head. A subclass makes the mixer and nothing else. Legend: B batch, T time, D model width.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lmzoo.configs import require_positive
from lmzoo.layers.gated_mlp import SwiGLU
from lmzoo.layers.linear import Embedding, make_head
from lmzoo.layers.norm import RMSNorm
from lmzoo.layers.stack import Stack
from lmzoo.model import LanguageModel, ModelConfig
from lmzoo.state import State


@dataclass(frozen=True, kw_only=True)
class MixerConfig(ModelConfig):
    """The sizes of the stack. A mixer's own settings are added by a subclass of this."""

    d_model: int = 128
    n_layers: int = 4
    d_ff: int | None = None  # None: 8/3 d_model, rounded up to a multiple of 32
    tie_embeddings: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "d_model", "n_layers")
        if self.d_ff is not None:
            require_positive(self, "d_ff")


class MixerBlock(nn.Module):
    """x + mixer(norm(x)), then x + swiglu(norm(x))."""

    def __init__(self, mixer: nn.Module, config: MixerConfig) -> None:
        super().__init__()
        d_model = config.d_model
        self.norm_1 = RMSNorm(d_model)
        self.mixer = mixer
        self.norm_2 = RMSNorm(d_model)
        self.mlp = SwiGLU(d_model, config.d_ff or -(-8 * d_model // 3 // 32) * 32)

    def empty_state(
        self, batch_size: int, max_len: int, *, device: torch.device | None, dtype: torch.dtype | None
    ) -> State:
        """Its piece of the decoding state before the first token."""
        mixer: Any = self.mixer
        return mixer.empty_state(batch_size, max_len, device=device, dtype=dtype)

    def forward(self, x_BTD: Tensor, state: State = None) -> tuple[Tensor, State]:
        y_BTD, state = self.mixer(self.norm_1(x_BTD), state)
        x_BTD = x_BTD + y_BTD
        return x_BTD + self.mlp(self.norm_2(x_BTD)), state


class MixerModel(LanguageModel):
    """A language model around any mixer; a subclass implements `make_mixer`, and `traits` where the default is wrong.

    The mixer sees no positions but those it makes for itself. By default the model declares the weakest traits: a
    window of the last `context_length` tokens. One whose mixer can go on for ever says so in `traits`.
    """

    config_class: ClassVar[type[ModelConfig]] = MixerConfig
    config: MixerConfig

    def __init__(self, config: MixerConfig) -> None:
        super().__init__(config)
        self.tokens = Embedding(config.vocab_size, config.d_model)
        mixers = (self.make_mixer(config, layer) for layer in range(config.n_layers))
        self.blocks = Stack(MixerBlock(mixer, config) for mixer in mixers)
        self.norm = RMSNorm(config.d_model)
        self.head = make_head(self.tokens, tied=config.tie_embeddings)

    @abstractmethod
    def make_mixer(self, config: Any, layer: int) -> nn.Module:
        """The mixer of block `layer` (0 ... n_layers - 1): a module `(x_BTD, state) -> (y_BTD, state)`.

        `state` is None in training, and then None is returned. For decoding, a mixer may have
        `empty_state(batch_size, max_len, *, device, dtype)`, whose result is what it is given before the first token;
        it returns the next state and leaves the old one as it is. When the mixers have none, decoding recomputes from
        the tokens so far, which is right and slow. `config` is of the subclass's own `config_class`.
        """

    def empty_state(
        self, batch_size: int, max_len: int, *, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> State:
        blocks: list[Any] = list(self.blocks)
        if not all(hasattr(block.mixer, "empty_state") for block in blocks):
            return None
        return self.blocks.empty_state(batch_size, max_len, device=device, dtype=dtype)

    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        x_BTD, state = self.blocks(self.tokens(idx_BT), state)
        return self.norm(x_BTD), state
