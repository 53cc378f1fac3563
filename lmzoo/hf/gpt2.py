"""Weight names of GPT-2 in transformers' GPT2LMHeadModel."""

from __future__ import annotations

from lmzoo.hf.weights import Head, Transposed, Weights

WEIGHTS: Weights = {
    "tokens.weight": "transformer.wte.weight",
    "positions.weight": "transformer.wpe.weight",
    "blocks.{i}.norm_1.weight": "transformer.h.{i}.ln_1.weight",
    "blocks.{i}.norm_1.bias": "transformer.h.{i}.ln_1.bias",
    "blocks.{i}.attention.qkv.weight": Transposed("transformer.h.{i}.attn.c_attn.weight"),
    "blocks.{i}.attention.qkv.bias": "transformer.h.{i}.attn.c_attn.bias",
    "blocks.{i}.attention.out.weight": Transposed("transformer.h.{i}.attn.c_proj.weight"),
    "blocks.{i}.attention.out.bias": "transformer.h.{i}.attn.c_proj.bias",
    "blocks.{i}.norm_2.weight": "transformer.h.{i}.ln_2.weight",
    "blocks.{i}.norm_2.bias": "transformer.h.{i}.ln_2.bias",
    "blocks.{i}.up.weight": Transposed("transformer.h.{i}.mlp.c_fc.weight"),
    "blocks.{i}.up.bias": "transformer.h.{i}.mlp.c_fc.bias",
    "blocks.{i}.down.weight": Transposed("transformer.h.{i}.mlp.c_proj.weight"),
    "blocks.{i}.down.bias": "transformer.h.{i}.mlp.c_proj.bias",
    "norm.weight": "transformer.ln_f.weight",
    "norm.bias": "transformer.ln_f.bias",
    "head.weight": Head("lm_head.weight", tokens="transformer.wte.weight"),
}
