"""GPT-NeoX compared with transformers' GPTNeoXForCausalLM with the same weights."""

from __future__ import annotations

import math

import pytest
import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

import lmzoo
from lmzoo.errors import ConfigError
from lmzoo.hf.gpt_neox import WEIGHTS
from tests.backbones.against_transformers import (
    TOLERANCE,
    assert_decoding_equals,
    assert_gradients_equal,
    ours_with_weights_of,
    perturb,
    random_tokens,
)


@pytest.mark.parametrize(
    ("parallel", "fraction", "head_dim", "rotated"),
    [(True, 0.25, 8, 2), (False, 0.25, 9, 2), (True, 1.0, 8, 8), (False, 0.5, 13, 6), (True, 0.25, 17, 4)],
)
def test_gpt_neox_logits_and_gradients_equal_transformers(
    parallel: bool, fraction: float, head_dim: int, rotated: int
) -> None:
    """Covers both residual forms, partial rotation, odd head widths, beyond the context; forward and step by step."""
    assert int(fraction * head_dim) == rotated, "an even number: transformers rounds an odd one up, we down"
    config = GPTNeoXConfig(
        vocab_size=61,
        hidden_size=3 * head_dim,
        num_hidden_layers=3,
        num_attention_heads=3,
        intermediate_size=40,
        rotary_pct=fraction,
        rotary_emb_base=1000,
        use_parallel_residual=parallel,
        layer_norm_eps=1e-3,
    )
    theirs = perturb(GPTNeoXForCausalLM(config))
    ours = ours_with_weights_of(
        theirs,
        "gpt_neox",
        WEIGHTS,
        vocab_size=61,
        context_length=16,
        d_model=3 * head_dim,
        n_layers=3,
        n_heads=3,
        d_ff=40,
        rotary_fraction=fraction,
        rope_theta=1000.0,
        parallel_residual=parallel,
        norm_eps=1e-3,
    )
    idx = random_tokens(61, 3, 30)
    with torch.no_grad():
        expected = theirs(idx).logits
    assert expected.std() > 0.5, "the weights must make the logits differ"
    torch.testing.assert_close(ours(idx).logits, expected, atol=TOLERANCE, rtol=0)
    assert_decoding_equals(ours, idx, expected, [11, 1, 3] + [1] * 15)
    assert_gradients_equal(ours, theirs, WEIGHTS, idx)


@pytest.mark.parametrize(
    ("preset", "layers", "width", "heads"), [("pythia-70m", 6, 512, 8), ("pythia-160m", 12, 768, 12)]
)
def test_gpt_neox_pythia_presets_have_the_published_number_of_parameters(
    preset: str, layers: int, width: int, heads: int
) -> None:
    sizes = {"num_hidden_layers": layers, "hidden_size": width, "num_attention_heads": heads}
    ours = lmzoo.create_model(f"gpt_neox.{preset}", device="meta")
    with torch.device("meta"):
        theirs = GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=50304, intermediate_size=4 * width, **sizes))
    assert ours.num_params() == theirs.num_parameters()


def test_gpt_neox_initialization_follows_the_authors() -> None:
    sizes = {"vocab_size": 512, "d_model": 256, "n_layers": 8}
    model = lmzoo.create_model("gpt_neox", **sizes, generator=torch.Generator().manual_seed(0))
    small, residual = math.sqrt(2 / (5 * 256)), 2 / (8 * math.sqrt(256))
    matrices = {name: parameter for name, parameter in model.named_parameters() if parameter.ndim == 2}
    assert len(matrices) == 2 + 8 * 4
    for name, parameter in matrices.items():
        std = residual if name.endswith(("out.weight", "down.weight")) else small
        assert abs(parameter.std().item() / std - 1) < 0.03, name
    assert all((p == 0).all() for name, p in model.named_parameters() if name.endswith("bias"))


def test_gpt_neox_config_refuses_a_fraction_that_rotates_nothing() -> None:
    with pytest.raises(ConfigError, match=r"rotary_fraction=0\.25 of head_dim=7 must be at least 2 features"):
        lmzoo.create_model("gpt_neox", vocab_size=13, d_model=28, n_heads=4)
    with pytest.raises(ConfigError, match=r"rotary_fraction=1\.5 must be in \[0, 1\]"):
        lmzoo.create_model("gpt_neox", vocab_size=13, rotary_fraction=1.5)
