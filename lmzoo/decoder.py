"""The frame that most architectures share: token embedding, blocks, final norm, head.

A family defines its block (`Decoder.block`), or, if it differs only in the mixer, only the mixer
(`MixerModel.make_mixer`). Legend: B batch, T time, D model width.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, NamedTuple, cast

from torch import Tensor, nn

from lmzoo.configs import require_positive, set_default
from lmzoo.layers import stack
from lmzoo.layers.context import Context, Rope
from lmzoo.layers.head import make_head
from lmzoo.layers.linear import Embedding
from lmzoo.layers.mlp import MLP, swiglu_width
from lmzoo.layers.norm import RMSNorm
from lmzoo.layers.rope_scaling import RopeScaling
from lmzoo.layers.stack import Residual, Stack
from lmzoo.model import LanguageModel, ModelConfig, StateGrowth, Traits
from lmzoo.state import State


@dataclass(frozen=True, kw_only=True)
class DecoderConfig(ModelConfig):
    """The sizes of the frame. A family's config adds its own settings."""

    scaled: ClassVar[dict[str, int]] = {"d_model": 8}

    d_model: int = 128  # width of the features
    n_layers: int = 4  # number of blocks
    norm_eps: float = 1e-5  # added to the variance in a normalization
    tie_embeddings: bool = False  # the head uses the weights of the token embedding

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "d_model", "n_layers", "norm_eps")


class DecoderState(NamedTuple):
    """The decoding state of a `Decoder`: the number of tokens read, and the states of its blocks."""

    position: int
    blocks: list[State]


class Decoder(LanguageModel):
    """Token embedding, `n_layers` blocks, a final norm, a head.

    A subclass implements `block` and may override `make_embedding`, `embed`, `make_norm` and `make_head`. One that
    needs more overrides `features`. Traits, FLOPs and state are computed from the layers.
    """

    config_class: ClassVar[type[ModelConfig]] = DecoderConfig
    extrapolates: ClassVar[bool] = True  # False for learned positions, which end at `context_length`

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.tokens = self.make_embedding(config)
        self.blocks = Stack(self._checked_block(config, layer) for layer in range(config.n_layers))
        self.norm = self.make_norm(config)
        self.head = self.make_head(config)

    @abstractmethod
    def block(self, config: Any, layer: int) -> nn.Module:
        """Returns the block at depth `layer` (0 ... n_layers - 1): a layer (`lmzoo.layers.layer.Layer`) or a `Stack`.

        `config` has the type of the subclass's `config_class`.
        """

    def _checked_block(self, config: Any, layer: int) -> nn.Module:
        block: object = self.block(config, layer)
        if not isinstance(block, nn.Module):
            raise TypeError(
                f"{type(self).__name__}.block must return a layer, such as Stack([a, b]), not a {type(block).__name__}"
            )
        return block

    def make_embedding(self, config: Any) -> Embedding:
        """Returns the token embedding (V, D)."""
        return Embedding(config.vocab_size, config.d_model)

    def embed(self, idx_BT: Tensor, ctx: Context) -> Tensor:
        """Maps tokens (B, T) to the first block's input (B, T, D)."""
        return self.tokens(idx_BT)

    def make_norm(self, config: Any) -> nn.Module:
        """Returns a norm over features (..., D), used after the last block; blocks may use it too."""
        return RMSNorm(config.d_model, config.norm_eps)

    def make_head(self, config: Any) -> nn.Module:
        """Returns the module that maps features (..., D) to logits (..., V)."""
        return make_head(self.tokens, tied=config.tie_embeddings)

    @property
    def traits(self) -> Traits:
        growth = cast(StateGrowth, stack.state_growth(self.blocks)) if stack.has_state(self.blocks) else "linear"
        return Traits(
            extrapolates=self.extrapolates,
            receptive_field=stack.reach(self.blocks),
            state_growth=growth,
            chooses=stack.chooses(self.blocks),
        )

    def same_until(self, length: int) -> int | None:
        """Returns the least of the lengths of the rules for longer texts."""
        return min((n for rule in self._rules if (n := rule.same_until(length)) is not None), default=None)

    @cached_property
    def _rules(self) -> list[RopeScaling]:
        """The rules of rotary positions that depend on the length of the text. Cached: each step asks them."""
        ropes = (getattr(module, "rope", None) for module in self.blocks.modules())
        rules = {rope.scaling for rope in ropes if isinstance(rope, Rope) and rope.scaling is not None}
        return [rule for rule in rules if rule.same_until(0) is not None]

    def init_layers(self, batch_size: int, max_len: int, like: Tensor) -> DecoderState | None:
        if not stack.has_state(self.blocks):
            return None
        return DecoderState(0, self.blocks.init_state(batch_size, max_len, like))

    def features(self, idx_BT: Tensor, state: DecoderState | None = None) -> tuple[Tensor, DecoderState | None]:
        position, blocks = (0, None) if state is None else state
        ctx = Context(position, idx_BT.shape[1], idx_BT.device, self.dtype)
        x_BTD, blocks = self.blocks(self.embed(idx_BT, ctx), blocks, ctx)
        return self.norm(x_BTD), None if blocks is None else DecoderState(position + ctx.T, blocks)


@dataclass(frozen=True, kw_only=True)
class MixerConfig(DecoderConfig):
    """The sizes of a `MixerModel`. A subclass adds the settings of its mixer."""

    scaled: ClassVar[dict[str, int]] = {"d_model": 8, "d_ff": 8}

    d_ff: int | None = None  # width of the feed-forward layers; None: 8/3 d_model, rounded up to a multiple of 32

    def __post_init__(self) -> None:
        super().__post_init__()
        set_default(self, "d_ff", swiglu_width(self.d_model))
        require_positive(self, "d_ff")


class MixerModel(Decoder):
    """A decoder around any mixer: blocks of `x + mixer(norm(x))`, then `x + swiglu(norm(x))`, as in Llama."""

    config_class: ClassVar[type[ModelConfig]] = MixerConfig

    def block(self, config: Any, layer: int) -> Stack:
        layers = (self.make_mixer(config, layer), MLP(config.d_model, config.d_ff))
        return Stack(Residual(self.make_norm(config), inner) for inner in layers)

    @abstractmethod
    def make_mixer(self, config: Any, layer: int) -> nn.Module:
        """Returns the mixer of block `layer` (0 ... n_layers - 1): a `lmzoo.layers.layer.Layer`."""
