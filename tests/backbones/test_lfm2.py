"""LFM2; tests/hf/test_load.py compares the logits of both kinds with transformers' classes."""

from __future__ import annotations

import pytest
import torch

import lmzoo
from lmzoo.errors import ConfigError
from lmzoo.hf.architecture import Config
from lmzoo.hf.lfm2_moe import LFM2_MOE
from tests.backbones.against_transformers import (
    TOLERANCE,
    assert_decoding_equals,
    assert_gradients_equal,
    ours_with_weights_of,
    random_tokens,
)
from tests.hf.references import case_keys, logits_of, reference

SIZES = {"vocab_size": 13, "d_model": 32, "n_layers": 2}


def test_lfm2_decoding_and_gradients_equal_transformers() -> None:
    theirs = reference("lfm2_moe", **case_keys("lfm2_moe", "no bias"))
    config = Config(theirs.config.to_dict())
    weights, settings = LFM2_MOE.weights_for(config), LFM2_MOE.settings(config, frozenset(config))
    ours = ours_with_weights_of(theirs, "lfm2", weights, **settings)
    idx = random_tokens(61, 2, 24)
    expected = logits_of(theirs, idx)
    torch.testing.assert_close(ours(idx).logits, expected, atol=TOLERANCE, rtol=0)
    assert_decoding_equals(ours, idx, expected, [11, 1, 3, *[1] * 9])
    assert_gradients_equal(ours, theirs, weights, idx[:, :16])


def test_lfm2_layers_follow_the_patterns() -> None:
    options = {"pattern": "conv attention", "feed_forward": "mlp experts", "d_conv": 4, "d_expert": 9, "head_dim": 6}
    (conv, dense), (attention, experts) = lmzoo.create_model("lfm2", **SIZES, **options, top_k=3).blocks
    assert [type(part.inner).__name__ for part in (conv, dense, attention, experts)] == [
        *("DoubleGatedConv", "MLP", "Attention", "SharedExperts")
    ]
    assert (conv.inner.reach, attention.inner.head_dim, attention.inner.q_norm.eps) == (4, 6, 1e-5)
    assert (experts.inner.top_k, experts.inner.d_ff, experts.inner.shared, experts.inner.share_eps) == (
        3,
        9,
        None,
        1e-6,
    )


def test_lfm2_of_convolutions_alone_has_a_small_state() -> None:
    model = lmzoo.create_model("lfm2", **SIZES, pattern="conv", d_conv=4)
    assert model.state_bytes(10) == model.state_bytes(1000) == 2 * 3 * 32 * 4
    assert model.traits.receptive_field == 2 * 3 + 1


def test_lfm2_350m_has_the_published_number_of_parameters() -> None:
    assert lmzoo.create_model("lfm2.350m", device="meta").num_params() == 354_483_968


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"pattern": "full"}, "pattern='full'"),
        ({"feed_forward": "none"}, "feed_forward='none'"),
        ({"d_conv": 0}, "d_conv=0"),
        ({"top_k": 9}, "top_k=9 must be at most n_experts=8"),
        ({"top_k": 1}, "top_k=1 needs normalize=False: the normalized weight of one expert is always 1"),
    ],
)
def test_lfm2_config_names_field_and_rule(settings: dict[str, object], error: str) -> None:
    with pytest.raises(ConfigError, match=error):
        lmzoo.create_model("lfm2", **SIZES, **settings)
