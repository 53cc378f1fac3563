"""OLMo Hybrid in transformers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from lmzoo.hf.architecture import Architecture, Config, Only, Settings, To, Together, keys_from, layer_words, refused
from lmzoo.hf.gated_deltanet import SIZES
from lmzoo.hf.gated_deltanet import WEIGHTS as DELTA
from lmzoo.hf.keys import ATTENTION, SWIGLU, unused
from lmzoo.hf.layouts import Either, Layout, Rows, Source, Squeezed, concatenated
from lmzoo.hf.olmo2 import WEIGHTS as OLMO2
from lmzoo.hf.rotary import ROPE, parameters_of, rope
from lmzoo.hf.weights import Reader, Weights
from lmzoo.hf.writer import Writer

QKV, CONV = "blocks.{i}.0.inner.qkv.weight", "blocks.{i}.0.inner.conv.weight"


def _sizes(config: Config) -> dict[str, int]:
    """Returns the heads and widths of the delta rule; missing ones follow from the heads of the attention."""
    heads = config.value("num_attention_heads", 30)
    key_heads = config.value("linear_num_key_heads", heads)
    key_dim = config.value("linear_key_head_dim", int(0.75 * config.value("hidden_size", 3840) / max(1, key_heads)))
    return {
        "delta_heads": config.value("linear_num_value_heads", heads),
        "delta_key_heads": key_heads,
        "key_dim": key_dim,
        "value_dim": config.value("linear_value_head_dim", 2 * key_dim),
    }


@dataclass(frozen=True)
class Joined(Layout):
    """Parts of any number of rows: transformers saves the filters of q, k and v in three parts of nearly equal size.

    Written are parts of these `rows`, as in the published models.
    """

    parts: tuple[Source, ...]
    rows: tuple[int, ...]

    def build(self, read: Reader, **index: int) -> Tensor:
        return concatenated([read(part, **index) for part in self.parts])

    def split(self, tensor: Tensor, write: Writer, **index: int) -> None:
        for part, piece in zip(self.parts, tensor.split(self.rows), strict=True):
            write(part, piece, **index)


def _weights(config: Config) -> Weights:
    """Returns the names for layers of both kinds, as transformers holds them and as it saves them."""
    sizes = _sizes(config)
    keys, values = sizes["delta_key_heads"] * sizes["key_dim"], sizes["delta_heads"] * sizes["value_dim"]
    delta, layer = "model.layers.{i}.linear_attn.", "model.layers.{i}."
    projections = Rows(tuple(f"{delta}{part}_proj.weight" for part in "qkv"), shares=(keys, keys, values))
    filters = Joined(tuple(f"{delta}{part}_conv1d.weight" for part in "qkv"), (keys, keys, values))
    between = (f"{layer}post_attention_layernorm.weight", f"{layer}feedforward_layer_norm.weight")
    return {
        **DELTA,
        **OLMO2,
        QKV: Either((OLMO2[QKV], projections)),  # type: ignore[arg-type]
        CONV: Squeezed(Either((filters, f"{delta}conv1d.weight")), axis=1),
        "blocks.{i}.0.inner.out.weight": Either((f"{layer}self_attn.o_proj.weight", f"{delta}o_proj.weight")),
        "blocks.{i}.0.before.weight": Either(
            (f"{layer}attention_layer_norm.weight", f"{layer}input_layernorm.weight"),
        ),
        "blocks.{i}.1.before.weight": Either(between[::-1]),
        "blocks.{i}.0.after.weight": Either(between),
    }


def _pattern(config: Config) -> dict[str, Any]:
    """Returns the kinds of the layers. There are no positions if `rope_theta` is null, as in the released models."""
    found, attention = dict(rope().settings(config)), "rope"
    parameters = parameters_of(config)
    if parameters.get("rope_theta", config.get("rope_theta", 0)) is None:
        found, attention = dict[str, Any](), "nope"
    kinds = ["full_attention" if layer % 4 == 3 else "linear_attention" for layer in range(config.layers())]
    if "full_attention" not in kinds:
        kinds[-1] = "full_attention"
    if config.get("layer_types") is None:
        config = Config({**config, "layer_types": kinds})
    words = config.words("layer_types", {"full_attention": attention, "linear_attention": "delta"})
    if len({*words}) < 2:
        raise refused("layer_types", config["layer_types"], "must have layers of both kinds")
    return {**found, "pattern": " ".join(words)}


def _pattern_keys(ours: Settings) -> dict[str, Any]:
    words = ours["pattern"]
    attention = "rope" if "rope" in words else "nope"
    layers = layer_words("layer_types", words, {"full_attention": attention, "linear_attention": "delta"})
    if attention == "nope":
        return {**layers, "rope_parameters": {"rope_type": "default", "rope_theta": None}}
    return {**layers, **rope().inverse_of(ours)}


OLMO_HYBRID = Architecture(
    model_type="olmo_hybrid",
    classes=("OlmoHybridForCausalLM",),
    family="olmo2",
    weights=_weights,
    keys={
        **ATTENTION,
        "hidden_act": SWIGLU,
        "attention_bias": Only(False),
        "tie_word_embeddings": To("tie_embeddings", default=False),
        "linear_conv_kernel_dim": To("d_conv", 4),
        "linear_allow_neg_eigval": To("negative_eigenvalues", default=True),
        **unused("linear_a_log_min", "linear_a_log_max", "linear_dt_min", "linear_dt_max", "linear_dt_init_floor"),
    },
    together=(
        Together((*SIZES,), _sizes, keys_from(SIZES)),
        Together((*ROPE, "layer_types"), _pattern, _pattern_keys),
    ),
)
