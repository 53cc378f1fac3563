"""Looped transformer (Yang et al. 2023, arXiv 2311.12424; Fan et al. 2024, arXiv 2409.15647): depth by repetition.

A Llama whose `n_layers` blocks run `n_loops` times with the same weights, as in the Universal Transformer (Dehghani et
al. 2018, arXiv 1807.03819). Distinctive: computation is independent of the number of parameters, and `with_loops` gives
the same weights more rounds at test time. Each round reads the result of the one before plus the embedded input
(`inject`), so that the input is not forgotten; without it, the model is a transformer of n_layers n_loops blocks with
tied weights (Saunshi et al. 2025, arXiv 2502.17416). Decoding keeps keys and values for every round. Deviations:
Llama's blocks instead of GPT-2's; the loss is that of the last round, and the number of rounds is fixed in training.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

from torch import Tensor

from lmzoo.configs import require_heads, require_positive, set_default
from lmzoo.decoder import Decoder, DecoderState, MixerConfig
from lmzoo.layers.attention import Attention
from lmzoo.layers.context import Context, Rope
from lmzoo.layers.init import deferred
from lmzoo.layers.mlp import MLP
from lmzoo.layers.stack import Residual, Stack
from lmzoo.registry import register_model
from lmzoo.state import State


@dataclass(frozen=True, kw_only=True)
class LoopedConfig(MixerConfig):
    """The looped transformer's sizes and options, in addition to `MixerConfig`."""

    scaled: ClassVar[dict[str, int]] = {"d_model": 8, "d_ff": 8}

    n_loops: int = 3  # rounds, each through all blocks
    inject: bool = True  # every round also reads the embedded input
    n_heads: int = 4  # attention heads
    n_kv_heads: int | None = None  # heads of keys and values; None: as many as n_heads
    rope_theta: float = 10000.0  # base of the rotary wavelengths

    def __post_init__(self) -> None:
        super().__post_init__()
        set_default(self, "n_kv_heads", self.n_heads)
        require_heads(self)
        require_positive(self, "n_loops", "rope_theta")


@register_model("looped")
class Looped(Decoder):
    """Blocks of attention and SwiGLU that run several times."""

    config_class = LoopedConfig
    config: LoopedConfig

    def block(self, config: Any, layer: int) -> Stack:
        rope = Rope(config.rope_theta)
        attention = Attention(config.d_model, config.n_heads, n_kv_heads=config.n_kv_heads, rope=rope)
        layers = (attention, MLP(config.d_model, config.d_ff))
        return Stack(Residual(self.make_norm(config), inner) for inner in layers)

    def with_loops(self, n_loops: int) -> Self:
        """Returns a model of `n_loops` rounds that shares this model's weights."""
        with deferred():
            model = type(self)(replace(self.config, n_loops=n_loops))
        model.load_state_dict(self.state_dict(keep_vars=True), assign=True)
        return model.train(self.training)

    def calls(self, T: int) -> dict[str, tuple[float, int]]:
        """Returns how often the blocks run for one token."""
        return {"blocks": (float(self.config.n_loops), T)}

    def init_layers(self, batch_size: int, max_len: int, like: Tensor) -> DecoderState:
        """Returns the states of all rounds before the first token."""
        rounds: list[State] = [self.blocks.init_state(batch_size, max_len, like) for _ in range(self.config.n_loops)]
        return DecoderState(0, rounds)

    def features(self, idx_BT: Tensor, state: DecoderState | None = None) -> tuple[Tensor, DecoderState | None]:
        position, rounds = (0, [None] * self.config.n_loops) if state is None else state
        ctx = Context(position, idx_BT.shape[1], idx_BT.device, self.dtype)
        input_BTD = x_BTD = self.embed(idx_BT, ctx)
        after: list[State] = []
        for i, piece in enumerate(rounds):
            x_BTD = x_BTD + input_BTD if i and self.config.inject else x_BTD
            x_BTD, piece = self.blocks(x_BTD, piece, ctx)
            after.append(piece)
        return self.norm(x_BTD), None if state is None else DecoderState(position + ctx.T, after)
