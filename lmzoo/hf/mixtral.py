"""Weight names of Mixtral in transformers' MixtralForCausalLM, where one tensor holds all experts of a layer."""

from __future__ import annotations

from lmzoo.hf.llama import WEIGHTS as LLAMA
from lmzoo.hf.weights import Weights

_MLP = ("blocks.{i}.1.inner.up.weight", "blocks.{i}.1.inner.down.weight")

WEIGHTS: Weights = {
    **{name: source for name, source in LLAMA.items() if name not in _MLP},
    "blocks.{i}.1.inner.router.weight": "model.layers.{i}.mlp.gate.weight",
    "blocks.{i}.1.inner.up": "model.layers.{i}.mlp.experts.gate_up_proj",
    "blocks.{i}.1.inner.down": "model.layers.{i}.mlp.experts.down_proj",
}
