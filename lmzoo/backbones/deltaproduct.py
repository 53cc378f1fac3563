"""DeltaProduct (Siems et al. 2025, "DeltaProduct: Improving State-Tracking in Linear RNNs via Householder Products",
arXiv 2502.10297): DeltaNet with several steps of the delta rule for each token.

Blocks of delta products (`lmzoo.layers.delta_product`) and SwiGLU. Distinctive: the transition of DeltaNet is one
generalized Householder matrix, identity plus rank one; here a token applies `n_steps` of them, each with its own key,
value and strength, so its transition can be a rotation or a permutation of more than two things. `n_steps` trades speed
for this ability. Options: `negative_eigenvalues` (Grazzi et al. 2024, arXiv 2411.12537), without which no product of
steps is a rotation, and `gated`, a decay once per token as in Gated DeltaNet. Keys of all heads have 3/4 of the model's
width, values twice as many features. Deviations: queries, keys and values share one projection and one convolution; the
convolution's filters get no weight decay.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from lmzoo.configs import require, require_positive, set_default
from lmzoo.decoder import MixerConfig, MixerModel
from lmzoo.layers.delta_product import DeltaProduct as DeltaProductMixer
from lmzoo.registry import register_model


@dataclass(frozen=True, kw_only=True)
class DeltaProductConfig(MixerConfig):
    """DeltaProduct's sizes and options, in addition to `MixerConfig`."""

    scaled: ClassVar[dict[str, int]] = {"d_model": 8, "key_dim": 2, "value_dim": 4, "d_ff": 8}
    checked: ClassVar[tuple[dict[str, Any], ...]] = ({"n_steps": 1}, {"n_steps": 3, "gated": False})

    n_heads: int = 4  # heads, each with a state of its own
    n_steps: int = 2  # steps of the delta rule per token
    key_dim: int | None = None  # width of a key; None: 3/4 of d_model / n_heads, rounded down
    value_dim: int | None = None  # width of a value; None: 2 key_dim
    d_conv: int = 4  # length of the convolution's filters
    negative_eigenvalues: bool = True  # beta, the strength of a write, is up to 2 instead of 1
    gated: bool = True  # the memory decays once per token

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "n_heads", "n_steps", "d_conv")
        default = 3 * self.d_model // (4 * self.n_heads)
        message = f"n_heads={self.n_heads} is too many for d_model={self.d_model}: key_dim would be 0"
        require(self.key_dim is not None or default > 0, message)
        set_default(self, "value_dim", 2 * (self.key_dim or default))
        set_default(self, "key_dim", default)
        require_positive(self, "key_dim", "value_dim")


@register_model("deltaproduct")
class DeltaProduct(MixerModel):
    """Blocks of delta products and SwiGLU."""

    config_class = DeltaProductConfig

    def make_mixer(self, config: Any, layer: int) -> DeltaProductMixer:
        return DeltaProductMixer(
            config.d_model,
            config.n_heads,
            config.key_dim,
            config.value_dim,
            n_steps=config.n_steps,
            gated=config.gated,
            d_conv=config.d_conv,
            negative_eigenvalues=config.negative_eigenvalues,
            norm_eps=config.norm_eps,
        )
