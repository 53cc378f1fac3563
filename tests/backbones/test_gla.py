"""GLA compared with its equations around the recurrence of flash-linear-attention.

tests/layers/test_gla.py compares the mixer with a loop over its equations.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch.nn.functional as F
from torch import Tensor

import lmzoo
from lmzoo.errors import ConfigError
from lmzoo.layers.gla import GLA
from tests.backbones.references import Weights, assert_equals_reference, mixer_model, rms
from tests.ops import fla_naive

recurrence = fla_naive.load("ops/gla/naive.py").naive_recurrent_gla


def mixer(weights: Weights, x: Tensor, config: Any) -> Tensor:
    """Computes the mixer by the equations of the paper, section 4.4."""
    D, H = config.d_model, config.n_heads
    parts = (x @ w.T for w in weights["qkv.weight"].split([D // 2, D // 2, D]))
    q, k, v = (part.unflatten(-1, (H, -1)) for part in parts)
    z = x @ weights["decay_down.weight"].T @ weights["decay_up.weight"].T + weights["decay_up.bias"]
    decay = z.sigmoid() ** (1 / config.temperature)
    y, _ = recurrence(q, k, v, decay.log().unflatten(-1, (H, -1)))
    gate = F.silu(x @ weights["gate.weight"].T + weights["gate.bias"])
    return (rms(y, weights["norm.weight"], config.norm_eps).flatten(2) * gate) @ weights["out.weight"].T


def test_gla_logits_gradients_and_decoding_equal_the_reference() -> None:
    sizes = {"d_model": 24, "n_layers": 2, "n_heads": 3, "d_ff": 20, "context_length": 16, "gate_rank": 5}
    assert_equals_reference(
        "gla",
        lambda weights, idx, config: mixer_model(weights, idx, config, mixer),
        T=40,
        temperature=2.0,
        norm_eps=1e-4,
        **sizes,
    )


def test_gla_passes_its_options_to_the_mixer() -> None:
    sizes = {"d_model": 32, "n_heads": 2, "gate_rank": 5, "temperature": 3.0, "norm_eps": 1e-3}
    (mixer, _), *_ = lmzoo.create_model("gla", vocab_size=13, **sizes).blocks
    assert isinstance(mixer.inner, GLA)
    assert (mixer.inner.n_heads, mixer.inner.temperature, mixer.inner.norm.eps) == (2, 3.0, 1e-3)
    assert mixer.inner.decay_up.weight.shape == (16, 5)


def test_gla_config_refuses_heads_that_do_not_divide_the_keys() -> None:
    with pytest.raises(ConfigError, match=r"n_heads=4 must divide d_model / 2 = 18, the width of the keys"):
        lmzoo.create_model("gla", vocab_size=13, d_model=36)


def test_gla_state_has_a_fixed_size() -> None:
    model = lmzoo.create_model("gla", vocab_size=13, d_model=32, n_layers=2, n_heads=4)
    assert model.state_bytes(10) == model.state_bytes(1000) == 2 * 4 * (4 * 4 * 8)
