"""MiniMax-01; tests/hf/test_load.py compares the logits of more settings with transformers' MiniMaxForCausalLM."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import MiniMaxConfig, MiniMaxForCausalLM

import lmzoo
from lmzoo.errors import ConfigError
from lmzoo.hf.architecture import Config
from lmzoo.hf.minimax import MINIMAX
from tests.backbones.against_transformers import (
    TOLERANCE,
    assert_decoding_equals,
    assert_gradients_equal,
    random_tokens,
)
from tests.hf.references import case_keys, logits_of, reference, saved

SIZES = {"vocab_size": 13, "d_model": 32, "n_layers": 2}


def test_minimax_decoding_and_gradients_equal_transformers(tmp_path: Path) -> None:
    theirs = reference("minimax", **case_keys("minimax"))
    ours = lmzoo.load_model(saved(theirs, tmp_path))
    idx = random_tokens(61, 2, 24)
    expected = logits_of(theirs, idx)
    torch.testing.assert_close(ours(idx).logits, expected, atol=TOLERANCE, rtol=0)
    assert_decoding_equals(ours, idx, expected, [11, 1, 3, *[1] * 9])
    theirs.config.use_cache = False  # no full forward with their own cache
    assert_gradients_equal(ours, theirs, MINIMAX.weights_for(Config(theirs.config.to_dict())), idx[:, :16])


def test_minimax_decays_become_weaker_with_the_depth() -> None:
    model = lmzoo.create_model("minimax", **SIZES | {"n_layers": 3}, pattern="lightning")
    steepness = [block[1].inner.steepness for block in model.blocks]
    assert steepness == pytest.approx([1, 0.5, 0], abs=2e-5)
    assert steepness[2] > 0


def test_minimax_text_01_has_the_published_numbers_of_parameters() -> None:
    model = lmzoo.create_model("minimax.text-01", device="meta")
    kinds = (["linear_attention"] * 7 + ["full_attention"]) * 10
    sizes = {"vocab_size": 200064, "hidden_size": 6144, "intermediate_size": 9216, "num_local_experts": 32}
    heads = {"num_attention_heads": 64, "head_dim": 128}
    with torch.device("meta"):
        theirs = MiniMaxForCausalLM(MiniMaxConfig(num_hidden_layers=80, layer_types=kinds, **sizes, **heads))
    assert model.num_params() == theirs.num_parameters()
    assert round(model.num_params() / 1e9) == 456
    tables = 2 * model.tokens.weight.numel()  # the published figure leaves out the embedding and the head
    assert round((model.num_params(active=True) - tables) / 1e9, 1) == 45.9


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"pattern": "linear"}, "pattern='linear'"),
        ({"top_k": 5}, "top_k=5 must be at most n_experts=4"),
        ({"top_k": 1}, "top_k=1 must be at least 2: the normalized weight of one expert is always 1"),
        ({"lightning_alpha": 0.0}, r"lightning_alpha=0\.0 must be above 0"),
        ({"rotary_fraction": 2.0}, "rotary_fraction=2.0"),
        (
            {"pattern": "attention", "rotary_fraction": 0.2},
            r"rotary_fraction=0\.2 of head_dim=8 must be at least 2 features",
        ),
        ({"n_kv_heads": 3}, "n_kv_heads=3 must divide n_heads=4"),
    ],
)
def test_minimax_config_names_field_and_rule(settings: dict[str, object], error: str) -> None:
    with pytest.raises(ConfigError, match=error):
        lmzoo.create_model("minimax", **SIZES, **settings)
