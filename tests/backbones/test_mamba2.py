"""Mamba-2 compared with transformers' Mamba2ForCausalLM (its plain torch path) with the same weights."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from transformers import Mamba2Config, Mamba2ForCausalLM

import lmzoo
from lmzoo.configs import to_dict
from lmzoo.errors import ConfigError
from lmzoo.hf.mamba2 import WEIGHTS
from lmzoo.hf.weights import convert
from tests.backbones.against_transformers import (
    TOLERANCE,
    assert_decoding_equals,
    ours_with_weights_of,
    perturb,
    random_tokens,
)


def make_pair(n_groups: int) -> tuple[lmzoo.LanguageModel, Mamba2ForCausalLM]:
    sizes = {"hidden_size": 32, "num_heads": 8, "head_dim": 8, "state_size": 5, "num_hidden_layers": 3}
    config = Mamba2Config(vocab_size=61, pad_token_id=None, n_groups=n_groups, conv_kernel=3, chunk_size=8, **sizes)
    theirs = perturb(Mamba2ForCausalLM(config))
    settings = {"d_model": 32, "head_dim": 8, "d_state": 5, "n_layers": 3, "n_groups": n_groups, "d_conv": 3}
    settings["tie_embeddings"] = False
    return ours_with_weights_of(theirs, "mamba2", WEIGHTS, vocab_size=61, context_length=16, **settings), theirs


@pytest.mark.parametrize("n_groups", [1, 2])
def test_mamba2_logits_equal_transformers(n_groups: int) -> None:
    """Longer than a chunk of ours and of theirs; forward and decoding in pieces."""
    ours, theirs = make_pair(n_groups)
    idx = random_tokens(61, 3, 45)
    with torch.no_grad():
        expected = theirs(idx, use_cache=False).logits
    assert expected.std() > 0.5, "the weights must make the logits differ"
    torch.testing.assert_close(ours(idx).logits, expected, atol=TOLERANCE, rtol=0)
    assert_decoding_equals(ours, idx, expected, [35, 1, 3] + [1] * 6)


def test_mamba2_gradients_equal_transformers() -> None:
    ours, theirs = make_pair(2)
    idx = random_tokens(61, 2, 40)
    F.cross_entropy(theirs(idx[:, :-1], use_cache=False).logits.flatten(0, 1), idx[:, 1:].flatten()).backward()
    ours(idx[:, :-1], idx[:, 1:]).loss.backward()
    grads = {name: p.grad for name, p in theirs.named_parameters() if p.grad is not None}
    expected = convert(grads, WEIGHTS, to_dict(ours.config))
    for name, parameter in ours.named_parameters():
        want = expected[name]
        torch.testing.assert_close(parameter.grad, want, atol=1e-4 * max(1.0, want.abs().max().item()), rtol=0)


def test_mamba2_config_refuses_heads_and_groups_that_do_not_fit() -> None:
    with pytest.raises(ConfigError, match=r"head_dim=24 must divide expand \* d_model = 64"):
        lmzoo.create_model("mamba2", vocab_size=13, d_model=32, head_dim=24)
    with pytest.raises(ConfigError, match="n_groups=3 must divide the number of heads, 2"):
        lmzoo.create_model("mamba2", vocab_size=13, d_model=32, n_groups=3)


def test_mamba2_state_has_a_fixed_size() -> None:
    model = lmzoo.create_model("mamba2", vocab_size=13, d_model=32, n_layers=2, d_state=8, n_groups=2)
    assert model.state_bytes(10) == model.state_bytes(1000) == 2 * 4 * (3 * (64 + 2 * 2 * 8) + 64 * 8)
    assert model.traits.state_growth == "constant"


def test_mamba2_initialization_follows_the_authors() -> None:
    sizes = {"d_model": 256, "n_layers": 4, "head_dim": 2}
    weights = lmzoo.create_model(
        "mamba2", vocab_size=13, **sizes, generator=torch.Generator().manual_seed(0)
    ).state_dict()
    rates, delta = weights["blocks.0.inner.A_log"].exp(), F.softplus(weights["blocks.0.inner.dt_bias"].double())
    assert 1 <= rates.min() < 1.3 < 15.7 < rates.max() <= 16.001
    assert 1e-3 * 0.999 < delta.min() < 1.2e-3 < 0.09 < delta.max() < 0.1 * 1.001
    assert (weights["blocks.1.inner.D"] == 1).all()
    for name, bound in {"in_proj": 1 / 16, "out_proj": 1 / 512**0.5 / 2}.items():
        assert 0.99 * bound < weights[f"blocks.1.inner.{name}.weight"].abs().max() <= bound


def test_mamba2_recurrence_gets_no_weight_decay() -> None:
    model = lmzoo.create_model("mamba2", vocab_size=13, d_model=32)
    decayed = {id(p) for group in model.parameter_groups(0.1) if group["weight_decay"] for p in group["params"]}
    kept = {name.partition("inner.")[2] for name, p in model.named_parameters() if id(p) not in decayed}
    assert kept - {""} == {"A_log", "D", "dt_bias", "norm_weight", "conv.weight", "conv.bias"}


@pytest.mark.parametrize(("preset", "millions", "within"), [("1m", 1, 0.05), ("10m", 10, 0.02)])
def test_mamba2_presets_have_the_size_of_their_names(preset: str, millions: float, within: float) -> None:
    n = lmzoo.create_model(f"mamba2.{preset}", vocab_size=256, device="meta").num_params()
    assert abs(n / (millions * 1e6) - 1) < within


def test_mamba2_130m_has_the_published_number_of_parameters() -> None:
    sizes = {"hidden_size": 768, "num_heads": 24, "head_dim": 64, "n_groups": 1, "num_hidden_layers": 24}
    ours = lmzoo.create_model("mamba2.130m", device="meta")
    with torch.device("meta"):
        theirs = Mamba2ForCausalLM(Mamba2Config(vocab_size=50288, tie_word_embeddings=True, **sizes))
    assert ours.num_params() == theirs.num_parameters()
