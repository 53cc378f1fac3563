"""Weight names of the Diff Transformer in transformers' DiffLlamaForCausalLM."""

from __future__ import annotations

from lmzoo.hf.llama import WEIGHTS as LLAMA
from lmzoo.hf.weights import Weights

_LAMBDAS = ("lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2")

WEIGHTS: Weights = {
    **LLAMA,
    **{f"blocks.{{i}}.0.inner.{name}": f"model.layers.{{i}}.self_attn.{name}" for name in _LAMBDAS},
}
