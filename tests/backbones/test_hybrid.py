"""Hybrids: the pattern determines the layer at each depth, and the traits."""

from __future__ import annotations

import re

import pytest
import torch

import lmzoo
from lmzoo.backbones.hybrid import MIXERS
from lmzoo.errors import ConfigError
from lmzoo.layers.context import Context
from lmzoo.layers.cross_layer_attention import CrossLayerAttention
from lmzoo.layers.experts import Experts
from lmzoo.layers.stack import call
from tests.backbones.against_transformers import perturb, random_tokens

SIZES = {"vocab_size": 13, "context_length": 16, "d_model": 32, "n_heads": 4, "window": 5}


def kinds(model: lmzoo.LanguageModel) -> list[str]:
    """Returns the class of each block's mixer, and of its feed-forward layer if that is not an MLP."""
    found = []
    for mixer, feed_forward in model.blocks:
        experts = "+experts" if isinstance(feed_forward.inner, Experts) else ""
        found.append(type(mixer.inner).__name__ + experts)
    return found


def test_hybrid_follows_its_pattern_to_the_depth() -> None:
    model = lmzoo.create_model("hybrid", **SIZES, n_layers=6, pattern="mamba*2 delta+experts attention lstm")
    assert kinds(model) == ["Mamba", "Mamba", "DeltaRule+experts", "Attention", "LSTM", "Mamba"]


def test_hybrid_window_and_cross_have_the_window_of_their_source() -> None:
    model = lmzoo.create_model("hybrid", **SIZES, n_layers=4, pattern="window cross attention cross")
    assert [mixer.inner.window for mixer, _ in model.blocks] == [5, 5, None, None]
    assert isinstance(model.blocks[1][0].inner, CrossLayerAttention)


@pytest.mark.parametrize(
    ("pattern", "growth", "reach"),
    [
        ("mamba attention", "linear", None),
        ("mamba window", "constant", None),
        ("window*2", "constant", 4 * (5 - 1) + 1),
        ("window cross", "constant", 2 * (5 - 1) + 1),
        ("lstm delta", "constant", None),
    ],
)
def test_hybrid_traits_follow_from_the_layers(pattern: str, growth: str, reach: int | None) -> None:
    traits = lmzoo.create_model("hybrid", **SIZES, n_layers=4, pattern=pattern).traits
    assert (traits.state_growth, traits.receptive_field) == (growth, reach)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("mamba conv", "'conv' must be one of attention, nope, window, cross, shared, path, delta"),
        ("mamba&attention+some", "must be one of attention"),
        ("mamba+experts&attention", "'mamba[+]experts&attention' must be MIXER or MIXER&MIXER"),
        ("experts", "'experts' must be MIXER"),
        ("cross attention", "cross must come after attention, nope or window"),
        ("mamba cross attention", "cross must come after attention, nope or window"),
        ("", "must name at least one of attention"),
    ],
)
def test_hybrid_refuses_a_wrong_pattern(pattern: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"pattern='{re.escape(pattern)}'.*{message}"):
        lmzoo.create_model("hybrid", **SIZES, n_layers=4, pattern=pattern)


EVERY_MIXER = (
    "window cross delta+experts mamba lstm+none attention cross mamba2&nope cross gated_delta kda linear retention gla "
    "rglru mlstm slstm gru mingru&window path delta_product log_linear ttt shared shared"
)


@pytest.mark.parametrize("lengths", [[40], [1] * 40, [17, 1, 1, 21]])
def test_hybrid_with_every_mixer_decodes_as_its_forward_pass(lengths: list[int]) -> None:
    assert {*MIXERS} <= {*re.split("[ &+]", EVERY_MIXER)}
    model = perturb(lmzoo.create_model("hybrid", **SIZES, n_layers=25, pattern=EVERY_MIXER)).double()
    idx = random_tokens(13, 2, 40)
    with torch.no_grad():
        expected_BTV = model(idx).logits
    state, t = model.init_state(2, 8), 0
    for length in lengths:
        logits_BV, state = model.decode(idx[:, t : t + length], state)
        t += length
        torch.testing.assert_close(logits_BV, expected_BTV[:, t - 1], atol=1e-9, rtol=0)


def test_hybrid_runs_mixers_side_by_side_on_the_same_input() -> None:
    model = lmzoo.create_model("hybrid", **SIZES, n_layers=2, pattern="attention&mamba mamba+none")
    side_by_side, alone = model.blocks
    x = torch.randn(1, 7, 32, generator=torch.Generator().manual_seed(0))
    branches = [residual.inner for residual in side_by_side[0]]
    assert [type(mixer).__name__ for mixer in branches] == ["Attention", "Mamba"]
    ctx = Context(0, 7, x.device, x.dtype)
    each = [call(residual, x, None, ctx)[0] - x for residual in side_by_side[0]]
    torch.testing.assert_close(side_by_side[0](x, None, ctx)[0], x + each[0] + each[1])
    assert len(alone) == 1, "no feed-forward layer"


@pytest.mark.parametrize(("negative", "largest_beta"), [(False, 1.0), (True, 2.0)])
def test_hybrid_negative_eigenvalues_are_those_of_its_delta_rules(negative: bool, largest_beta: float) -> None:
    settings = {**SIZES, "n_layers": 2, "pattern": "delta gated_delta"}
    model = lmzoo.create_model("hybrid", **settings, negative_eigenvalues=negative)
    assert [mixer.inner.largest_beta for mixer, _ in model.blocks] == [largest_beta] * 2


def test_hybrid_cross_layers_have_no_state() -> None:
    settings = {**SIZES, "n_layers": 2}
    own, shared = (lmzoo.create_model("hybrid", **settings, pattern=p) for p in ("attention*2", "attention cross"))
    assert own.state_bytes(64) == 2 * shared.state_bytes(64)


def test_hybrid_shares_one_attention_between_depths() -> None:
    settings = {**SIZES, "n_layers": 4}
    one, two = (
        lmzoo.create_model("hybrid", **settings, pattern=p) for p in ("shared mamba*3", "shared mamba*2 shared")
    )
    first, last = (two.blocks[layer][0].inner for layer in (0, 3))
    assert last.attention is first.attention
    mamba, out = (sum(p.numel() for p in module.parameters()) for module in (two.blocks[1][0].inner, last.out))
    assert two.num_params() - one.num_params() == out - mamba
    assert two.flops_per_token(16) > one.flops_per_token(16)


def test_hybrid_passes_sizes_of_mamba_and_positions_on() -> None:
    """tests/hf compares a whole model with transformers' BambaForCausalLM."""
    options = {"ssm_head_dim": 16, "ssm_groups": 2, "expand": 3, "rotary_fraction": 0.5, "norm_eps": 0.5}
    model = lmzoo.create_model(
        "hybrid", vocab_size=13, d_model=32, n_layers=3, pattern="mamba2 mamba attention", **options
    )
    second, first, attention = (block[0].inner for block in model.blocks)
    assert (second.head_dim, second.n_heads, second.n_groups, second.norm_eps) == (16, 6, 2, 0.5)
    assert first.D.shape == (96,)
    assert attention.rope.fraction == 0.5
    wrong = (
        {"n_heads": 0},
        {"ssm_head_dim": 5},
        {"ssm_head_dim": 0},
        {"ssm_groups": 3},
        {"expand": 0},
        {"rotary_fraction": 2.0},
    )
    for settings in wrong:
        with pytest.raises(ConfigError, match=next(iter(settings))):
            lmzoo.create_model("hybrid", vocab_size=13, d_model=32, **settings)
