"""The looped transformer compared with transformers' LlamaForCausalLM, whose layers are listed several times."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

import lmzoo
from lmzoo.hf.llama import WEIGHTS
from tests.backbones.against_transformers import (
    TOLERANCE,
    assert_decoding_equals,
    assert_gradients_equal,
    ours_with_weights_of,
    perturb,
    random_tokens,
)

SIZES = {
    "vocab_size": 61,
    "d_model": 32,
    "n_layers": 2,
    "n_heads": 4,
    "n_kv_heads": 2,
    "d_ff": 48,
    "context_length": 16,
}


def looped_llama(theirs: LlamaForCausalLM, n_loops: int, *, inject: bool) -> LlamaForCausalLM:
    """Lists the layers of a Llama `n_loops` times, and adds the embedded input to that of every round but the first."""
    embedded: list[Tensor] = []
    rounds = itertools.cycle(range(n_loops))

    def add_input(layer: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (args[0] + embedded[-1], *args[1:]) if next(rounds) and inject else args

    theirs.model.embed_tokens.register_forward_hook(lambda module, args, out: embedded.append(out))
    theirs.model.layers[0].register_forward_pre_hook(add_input)
    n_layers = len(theirs.model.layers)
    theirs.model.layers = nn.ModuleList(list(theirs.model.layers) * n_loops)
    theirs.config.num_hidden_layers, theirs.config.use_cache = n_layers * n_loops, False
    return theirs


@pytest.mark.parametrize(("n_loops", "inject"), [(3, True), (3, False), (1, True)])
def test_looped_logits_and_gradients_equal_transformers(n_loops: int, inject: bool) -> None:
    config = LlamaConfig(
        vocab_size=61,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        rms_norm_eps=1e-5,
    )
    theirs = perturb(LlamaForCausalLM(config))
    ours = ours_with_weights_of(theirs, "looped", WEIGHTS, **SIZES, n_loops=n_loops, inject=inject)
    theirs = looped_llama(theirs, n_loops, inject=inject)
    idx = random_tokens(61, 3, 30)
    with torch.no_grad():
        expected = theirs(idx).logits
    assert expected.std() > 0.5, "the weights must make the logits differ"
    torch.testing.assert_close(ours(idx).logits, expected, atol=TOLERANCE, rtol=0)
    assert_decoding_equals(ours, idx, expected, [11, 1, 3] + [1] * 15)
    assert_gradients_equal(ours, theirs, WEIGHTS, idx)


def test_looped_without_injection_is_a_llama_with_tied_blocks() -> None:
    looped = lmzoo.create_model("looped", **SIZES, n_loops=3, inject=False).double()
    llama = lmzoo.create_model("llama", **{**SIZES, "n_layers": 6}).double()
    llama.load_state_dict({name: looped.state_dict()[_tied(name)] for name in llama.state_dict()})
    idx = random_tokens(61, 2, 20)
    torch.testing.assert_close(looped(idx).logits, llama(idx).logits)
    assert looped.flops_per_token(20) == llama.flops_per_token(20)
    assert looped.state_bytes(20) == llama.state_bytes(20)
    assert looped.num_params() < llama.num_params()


def _tied(name: str) -> str:
    """Returns the name of the looped model's parameter that a Llama's parameter stands for."""
    first, i, *rest = name.split(".")
    return name if first != "blocks" else ".".join([first, str(int(i) % 2), *rest])


@pytest.mark.parametrize("tie_embeddings", [False, True])
def test_looped_with_loops_shares_the_weights(tie_embeddings: bool) -> None:
    """Covers a deeper model of trained weights: it is the model of that depth, and trains the same parameters."""
    model = lmzoo.create_model("looped", **SIZES, n_loops=2, tie_embeddings=tie_embeddings).double().eval()
    before = torch.get_rng_state()
    deeper = model.with_loops(5)
    assert torch.equal(torch.get_rng_state(), before), "no weights are drawn"
    again = lmzoo.create_model("looped", **SIZES, n_loops=5, tie_embeddings=tie_embeddings).double()
    again.load_state_dict(model.state_dict())
    idx = random_tokens(61, 2, 20)
    assert (deeper.config.n_loops, model.config.n_loops, deeper.training) == (5, 2, False)
    assert torch.equal(deeper(idx).logits, again(idx).logits)
    assert (deeper(idx).logits - model(idx).logits).abs().max() > 1e-3
    assert [id(p) for p in deeper.parameters()] == [id(p) for p in model.parameters()]


def test_looped_keeps_a_state_for_every_round() -> None:
    model = lmzoo.create_model("looped", **SIZES, n_loops=3)
    assert len(model.init_state(1)["layers"].blocks) == 3
    assert model.state_bytes(50) == 3 * 2 * 4 * 50 * 2 * 16
