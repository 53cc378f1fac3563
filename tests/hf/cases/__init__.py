"""Tiny configurations of transformers: the keys of a case for each model type, and variants of them."""

from tests.hf.cases import experts, gpt, layer_norm, linear, llama, recurrent
from tests.hf.cases.case import Case

# An entry for each model type that lmzoo loads: add one with a new architecture.
CASES: dict[str, Case] = {
    **gpt.CASES,
    **layer_norm.CASES,
    **llama.CASES,
    **experts.CASES,
    **linear.CASES,
    **recurrent.CASES,
}
