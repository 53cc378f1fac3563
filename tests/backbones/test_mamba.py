"""Mamba compared with transformers' MambaForCausalLM with the same weights."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from transformers import MambaConfig, MambaForCausalLM

import lmzoo
from lmzoo.errors import ConfigError
from lmzoo.hf.mamba import WEIGHTS
from lmzoo.ops.selective_scan import CHUNK_LENGTH
from tests.backbones.against_transformers import (
    TOLERANCE,
    assert_decoding_equals,
    assert_gradients_equal,
    ours_with_weights_of,
    perturb,
    random_tokens,
)


def make_pair() -> tuple[lmzoo.LanguageModel, MambaForCausalLM]:
    sizes = {"hidden_size": 32, "state_size": 5, "num_hidden_layers": 3, "conv_kernel": 3, "time_step_rank": 4}
    theirs = MambaForCausalLM(MambaConfig(vocab_size=61, use_mambapy=False, **sizes))
    perturb(theirs)
    settings = {"d_model": 32, "d_state": 5, "n_layers": 3, "d_conv": 3, "dt_rank": 4}
    ours = ours_with_weights_of(theirs, "mamba", WEIGHTS, vocab_size=61, context_length=16, **settings)
    return ours, theirs


@pytest.mark.parametrize("T", [1, CHUNK_LENGTH + 5])
def test_mamba_logits_loss_and_gradients_equal_transformers(T: int) -> None:
    ours, theirs = make_pair()
    idx = random_tokens(61, 3, T + 1)
    with torch.no_grad():
        expected = theirs(idx[:, :-1]).logits
        logits, loss = ours(idx[:, :-1], idx[:, 1:])
    assert expected.std() > 0.5, "the weights must make the logits differ"
    torch.testing.assert_close(logits, expected, atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(
        loss, F.cross_entropy(expected.flatten(0, 1), idx[:, 1:].flatten()), atol=TOLERANCE, rtol=0
    )
    assert_gradients_equal(ours, theirs, WEIGHTS, idx[:, :-1])


def test_mamba_decoding_equals_transformers() -> None:
    """Decodes a prefill longer than one chunk, then single steps, then two tokens in one call."""
    ours, theirs = make_pair()
    idx = random_tokens(61, 2, CHUNK_LENGTH + 8)
    with torch.no_grad():
        expected = theirs(idx).logits
    assert_decoding_equals(ours, idx, expected, [CHUNK_LENGTH + 3, 1, 1, 2, 1])


def test_mamba_initialization_follows_the_authors() -> None:
    model = lmzoo.create_model("mamba", vocab_size=512, d_model=256, generator=torch.Generator().manual_seed(0))
    weights = model.state_dict()
    delta = F.softplus(weights["blocks.0.inner.dt_bias"].double())
    assert 1e-3 * 0.999 < delta.min() < 1.1e-3
    assert 0.09 < delta.max() < 0.1 * 1.001
    assert abs(delta.log().mean().item() - torch.tensor(1e-2).log().item()) < 0.15, "log-uniform"
    torch.testing.assert_close(weights["blocks.0.inner.A_log"][7].exp(), torch.arange(1.0, 17))
    assert (weights["blocks.0.inner.D"] == 1).all()
    bounds = {"in_proj": 1 / 16, "out_proj": 1 / 512**0.5 / 2, "x_proj": 1 / 512**0.5, "dt_proj": 1 / 4}
    for name, bound in bounds.items():
        assert 0.99 * bound < weights[f"blocks.1.inner.{name}.weight"].abs().max() <= bound
    assert abs(weights["tokens.weight"].std().item() / 0.02 - 1) < 0.02


def test_mamba_recurrence_gets_no_weight_decay() -> None:
    model = lmzoo.create_model("mamba", vocab_size=13, d_model=32)
    decayed = {id(p) for group in model.parameter_groups(0.1) if group["weight_decay"] for p in group["params"]}
    kept = {
        name.partition("inner.")[2] for name, p in model.named_parameters() if id(p) not in decayed and "inner" in name
    }
    assert kept == {"A_log", "D", "dt_bias", "conv.weight", "conv.bias"}


def test_mamba_state_has_a_fixed_size_and_is_float32() -> None:
    model = lmzoo.create_model("mamba", vocab_size=13, d_model=32, n_layers=2)
    assert model.state_bytes(10) == model.state_bytes(1000) == 2 * 4 * 64 * (3 + 16)
    idx = random_tokens(13, 1, 20)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _, state = model.decode(idx, model.init_state(1))
    assert all(piece.h.dtype == torch.float32 for piece in state["layers"].blocks)


def test_mamba_compiles_in_one_graph_with_the_same_gradients() -> None:
    model = lmzoo.create_model("mamba", vocab_size=13, d_model=32, n_layers=1)
    idx = random_tokens(13, 2, CHUNK_LENGTH + 2)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    parameters = list(model.parameters())
    actual = torch.autograd.grad(compiled(idx[:, :-1], idx[:, 1:])[1], parameters)
    expected = torch.autograd.grad(model(idx[:, :-1], idx[:, 1:]).loss, parameters)
    for got, want in zip(actual, expected, strict=True):
        torch.testing.assert_close(got, want)


def test_mamba_130m_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        theirs = MambaForCausalLM(MambaConfig(vocab_size=50280, hidden_size=768, num_hidden_layers=24))
        ours = lmzoo.create_model("mamba.130m")
    assert ours.num_params() == theirs.num_parameters()


def test_mamba_select_eps_normalizes_what_the_token_selects() -> None:
    """tests/hf compares a whole model with transformers' FalconMambaForCausalLM."""
    torch.manual_seed(0)
    model = lmzoo.create_model("mamba", vocab_size=13, d_model=32, n_layers=1, select_eps=0.3)
    mixer = model.blocks[0].inner
    u_BTE = torch.randn(2, 5, 64)
    dt, B, C = (
        part / (part.square().mean(-1, keepdim=True) + 0.3).sqrt()
        for part in mixer.x_proj(u_BTE).split((2, 16, 16), -1)
    )
    for found, expected in zip(mixer.select(u_BTE), (F.softplus(mixer.dt_proj(dt) + mixer.dt_bias), B, C), strict=True):
        torch.testing.assert_close(found, expected)
    with pytest.raises(ConfigError, match="select_eps=0"):
        lmzoo.create_model("mamba", vocab_size=13, select_eps=0.0)
