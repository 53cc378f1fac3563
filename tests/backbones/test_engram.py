"""Engram compared with transformers' Llama whose layers are preceded by Qwen4-Exp's n-gram layers, same weights.

tests/layers/test_engram.py compares the memory with a loop over its equations.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.qwen4_exp.modeling_qwen4_exp import Qwen4ExpTextPLELayer

import lmzoo
from lmzoo.configs import to_dict
from lmzoo.errors import ConfigError
from lmzoo.hf.layouts import Squeezed
from lmzoo.hf.llama import WEIGHTS as LLAMA
from lmzoo.hf.weights import Weights, convert
from lmzoo.layers.engram import Engram
from tests.backbones.against_transformers import assert_decoding_equals, perturb, random_tokens
from tests.backbones.references import assert_close

VOCAB, SEED = 61, 7
OURS = {
    "vocab_size": VOCAB,
    "context_length": 16,
    "d_model": 32,
    "d_ff": 48,
    "n_layers": 3,
    "n_heads": 4,
    "n_kv_heads": 2,
    "pattern": "memory plain memory",
    "memory_dim": 24,
    "table_size": 19,
    "hash_seed": SEED,
}
MEMORY: Weights = {
    "table": "ple_embedding.ngram_embedding.weight",
    "key.weight": "key_proj.weight",
    "value.weight": "value_proj.weight",
    "key_norm.weight": "norm_key.weight",
    "query_norm.weight": "norm_query.weight",
    "conv_norm.weight": "norm_conv.weight",
    "conv": Squeezed("conv1d.weight", axis=1),
}


class Reference(nn.Module):
    """Llama of transformers; before layers 0 and 2 the n-gram layer adds its output to the hidden state."""

    def __init__(self) -> None:
        super().__init__()
        sizes = {"vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3}
        heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "attn_implementation": "eager"}
        self.llama = LlamaForCausalLM(LlamaConfig(**sizes, **heads, rms_norm_eps=1e-5))
        memory = SimpleNamespace(hidden_size=32, hc_count=1, ple_embed_dim=24, ple_conv_kernel_size=4, ngram_size=3)
        memory.heads_per_ngram, memory.ngram_vocab_size_base, memory.seed = 4, 19, SEED
        # Their padding is the end of a text; an id that no token has makes it ours.
        memory.vocab_size, memory.eos_token_id = VOCAB + 1, VOCAB
        memory.make_ngram_vocab_size_divisible_by, memory.rms_norm_eps = 1, 1e-5
        self.memories = nn.ModuleList(Qwen4ExpTextPLELayer(memory, layer, i) for i, layer in enumerate((0, 2)))
        for layer, memory in zip((0, 2), self.memories, strict=True):
            self.llama.model.layers[layer].register_forward_pre_hook(self.adding(memory))

    def adding(self, memory: nn.Module) -> Any:
        return lambda _, inputs: (inputs[0] + memory(inputs[0], self.idx, None), *inputs[1:])

    def forward(self, idx: Tensor) -> Tensor:
        self.idx = idx
        return self.llama(idx, use_cache=False).logits


def converted(llama: dict[str, Tensor], memories: list[dict[str, Tensor]], config: Any) -> dict[str, Tensor]:
    """Returns tensors by our names: in blocks with a memory, the memory comes first and the others move up by one."""
    ours = {}
    for name, tensor in convert(llama, LLAMA, to_dict(config)).items():
        head, *rest = name.split(".")
        if head == "blocks" and rest[0] in ("0", "2"):
            rest[1] = str(int(rest[1]) + 1)
        ours[".".join([head, *rest])] = tensor
    for block, memory in zip((0, 2), memories, strict=True):
        names = convert(memory, MEMORY, to_dict(config))
        ours |= {f"blocks.{block}.0.inner.{name}": tensor for name, tensor in names.items()}
    return ours


def test_engram_logits_and_gradients_equal_transformers() -> None:
    theirs, ours = perturb(Reference()), lmzoo.create_model("engram", **OURS).eval()
    memories = [dict(memory.named_parameters()) for memory in theirs.memories]
    ours.load_state_dict(converted(theirs.llama.state_dict(), memories, ours.config), strict=True)
    theirs.double()  # the square root in the gate has a steep slope, so float32 gradients depend on the order of sums
    ours.double()
    idx, targets = random_tokens(VOCAB, 3, 30), random_tokens(VOCAB, 3, 30, seed=2)
    expected = theirs(idx)
    assert expected.std() > 0.3, "the weights must make the logits differ"
    logits, loss = ours(idx, targets)
    assert_close(logits, expected, "logits")
    assert_decoding_equals(ours, idx, expected.detach(), [11, 1, 3] + [1] * 15)
    loss.backward()
    F.cross_entropy(expected.flatten(0, 1), targets.flatten()).backward()
    llama = {name: parameter.grad for name, parameter in theirs.llama.named_parameters()}
    gradients = [{name: p.grad for name, p in memory.named_parameters()} for memory in theirs.memories]
    for name, gradient in converted(llama, gradients, ours.config).items():
        assert_close(ours.get_parameter(name).grad, gradient, name)


def test_engram_passes_its_options_to_the_memory() -> None:
    model = lmzoo.create_model("engram", **{**OURS, "max_ngram": 4, "hash_heads": 2, "d_conv": 3})
    first, second = (model.blocks[layer][0].inner for layer in (0, 2))
    assert isinstance(first, Engram)
    assert (first.max_ngram, first.d_conv, first.sizes) == (4, 3, [[19, 23], [29, 31], [37, 41]])
    assert second.sizes == [[43, 47], [53, 59], [61, 67]]
    assert first.table.shape == (19 + 23 + 29 + 31 + 37 + 41, 4)


def test_engram_state_holds_ids_and_inputs_of_the_convolution() -> None:
    model = lmzoo.create_model("engram", **OURS)
    assert model.state_bytes(50) == 3 * 4 * 50 * 2 * 16 + 2 * (2 * 8 + 4 * 9 * 32)
    assert model.traits.state_growth == "linear"


def test_engram_counts_the_rows_that_a_token_reads_as_active() -> None:
    model = lmzoo.create_model("engram", **OURS)
    idle = sum(model.blocks[layer][0].inner.table.numel() - 24 for layer in (0, 2))
    assert model.num_params() - model.num_params(active=True) == idle


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"memory_dim": 20}, "memory_dim=20 must be a multiple of 8"),
        ({"max_ngram": 1}, "max_ngram=1 must be at least 2"),
        ({"pattern": "memories"}, "'memories' must be one of plain, memory"),
    ],
)
def test_engram_config_refuses_wrong_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        lmzoo.create_model("engram", **{**OURS, **settings})
