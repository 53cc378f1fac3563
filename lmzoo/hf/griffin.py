"""Weight names of Griffin in transformers' RecurrentGemmaForCausalLM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from lmzoo.hf.weights import Head, Layout, Reader, Rows, Source, Squeezed, Weights


@dataclass(frozen=True)
class InLayer(Layout):
    """A part with a fixed layer, for models whose layers differ."""

    part: Source
    layer: int

    def build(self, read: Reader, **index: int) -> Tensor:
        return read(self.part, **(index | {"i": self.layer}))


MODEL: Weights = {
    "tokens.weight": "model.embed_tokens.weight",
    "norm.weight": "model.final_norm.weight",
    "head.linear.weight": Head("lm_head.weight", tokens="model.embed_tokens.weight"),
}
BLOCK: dict[str, Source] = {
    "0.before.weight": "model.layers.{i}.temporal_pre_norm.weight",
    "1.before.weight": "model.layers.{i}.channel_pre_norm.weight",
    "1.inner.up.weight": Rows(
        ("model.layers.{i}.mlp_block.gate_proj.weight", "model.layers.{i}.mlp_block.up_proj.weight")
    ),
    "1.inner.up.bias": Rows(("model.layers.{i}.mlp_block.gate_proj.bias", "model.layers.{i}.mlp_block.up_proj.bias")),
    "1.inner.down.weight": "model.layers.{i}.mlp_block.down_proj.weight",
    "1.inner.down.bias": "model.layers.{i}.mlp_block.down_proj.bias",
}
MIXERS: dict[str, dict[str, Source]] = {
    "recurrent": {
        "in_proj.weight": Rows(  # the gate first
            (
                "model.layers.{i}.temporal_block.linear_y.weight",
                "model.layers.{i}.temporal_block.linear_x.weight",
            )
        ),
        "in_proj.bias": Rows(
            ("model.layers.{i}.temporal_block.linear_y.bias", "model.layers.{i}.temporal_block.linear_x.bias")
        ),
        "conv_weight": Squeezed("model.layers.{i}.temporal_block.conv_1d.weight", axis=1),
        "conv_bias": "model.layers.{i}.temporal_block.conv_1d.bias",
        "gates": Rows(
            (
                "model.layers.{i}.temporal_block.rg_lru.input_gate_weight",
                "model.layers.{i}.temporal_block.rg_lru.recurrent_gate_weight",
            )
        ),
        "gate_bias": Rows(
            (
                "model.layers.{i}.temporal_block.rg_lru.input_gate_bias",
                "model.layers.{i}.temporal_block.rg_lru.recurrent_gate_bias",
            )
        ),
        "decay": "model.layers.{i}.temporal_block.rg_lru.recurrent_param",
        "out.weight": "model.layers.{i}.temporal_block.linear_out.weight",
        "out.bias": "model.layers.{i}.temporal_block.linear_out.bias",
    },
    "attention": {
        "qkv.weight": Rows(
            (
                "model.layers.{i}.temporal_block.q_proj.weight",
                "model.layers.{i}.temporal_block.k_proj.weight",
                "model.layers.{i}.temporal_block.v_proj.weight",
            ),
            shares=("n_heads", "n_kv_heads", "n_kv_heads"),
        ),
        "out.weight": "model.layers.{i}.temporal_block.o_proj.weight",
        "out.bias": "model.layers.{i}.temporal_block.o_proj.bias",
    },
}


def weights(mixers: Sequence[str]) -> Weights:
    """Returns the map for a model with these mixers, "recurrent" or "attention", from bottom to top."""
    found = dict(MODEL)
    for i, mixer in enumerate(mixers):
        parts = BLOCK | {f"0.inner.{name}": source for name, source in MIXERS[mixer].items()}
        found |= {f"blocks.{i}.{name}": InLayer(source, i) for name, source in parts.items()}
    return found
