"""DeltaNet compared with its equations around the recurrence of flash-linear-attention; parity by negative eigenvalues.

tests/layers/test_delta_rule.py compares the mixer with a loop over its equations, tests/ops/test_delta_rule.py the
chunked form with the recurrence.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import lmzoo
from lmzoo.layers.delta_rule import DeltaRule
from lmzoo.ops.delta_rule import delta_rule
from tests.backbones.against_transformers import random_tokens
from tests.backbones.references import Weights, assert_equals_reference, mixer_model, rms
from tests.ops import fla_naive

recurrence = fla_naive.load("ops/delta_rule/naive.py").delta_rule_recurrence


def mixer(weights: Weights, x: Tensor, config: Any) -> Tensor:
    """Computes the mixer with separate projections and a convolution each; heads come before time in the recurrence."""
    D, H = config.d_model, config.n_heads
    parts = []
    for w, taps in zip(weights["qkv.weight"].split(D), weights["conv.weight"].split(D), strict=True):
        padded = F.pad((x @ w.T).mT, (config.d_conv - 1, 0))
        convolved = F.silu(F.conv1d(padded, taps[:, None], groups=D)).mT
        parts.append(convolved.unflatten(-1, (H, -1)).transpose(1, 2))
    q, k, v = parts
    q, k = (part * (part.square().sum(-1, keepdim=True) + 1e-6).rsqrt() for part in (q, k))
    beta = (2 if config.negative_eigenvalues else 1) * (x @ weights["beta.weight"].T).sigmoid()
    y, _ = recurrence(q, k, v, beta.transpose(1, 2))
    return rms(y.transpose(1, 2), weights["norm.weight"], config.norm_eps).flatten(2) @ weights["out.weight"].T


@pytest.mark.parametrize("negative_eigenvalues", [False, True])
def test_deltanet_logits_gradients_and_decoding_equal_the_reference(negative_eigenvalues: bool) -> None:
    sizes = {"d_model": 24, "n_layers": 2, "n_heads": 3, "d_ff": 20, "context_length": 16, "d_conv": 3}
    assert_equals_reference(
        "deltanet",
        lambda weights, idx, config: mixer_model(weights, idx, config, mixer),
        T=40,
        negative_eigenvalues=negative_eigenvalues,
        norm_eps=1e-4,
        **sizes,
    )


def test_deltanet_passes_its_options_to_the_mixer() -> None:
    model = lmzoo.create_model("deltanet", vocab_size=13, d_model=32, n_heads=2, d_conv=3, negative_eigenvalues=True)
    (mixer, _), *_ = model.blocks
    assert isinstance(mixer.inner, DeltaRule)
    assert (mixer.inner.n_heads, mixer.inner.conv.reach, mixer.inner.largest_beta) == (2, 3, 2.0)


@pytest.mark.parametrize(("beta", "expected"), [(2.0, [1, 1, -1, -1, 1]), (1.0, [1, 1, 0, 0, 0])])
def test_deltanet_needs_a_negative_eigenvalue_for_parity(beta: float, expected: list[float]) -> None:
    """With beta = 2 and value 0 a write flips the sign of what is stored: the parity of the ones in 0, 0, 1, 0, 1."""
    ones = torch.tensor([0.0, 0.0, 1.0, 0.0, 1.0], dtype=torch.float64)
    key_BTHK = torch.tensor([1.0, 0.0], dtype=torch.float64).expand(1, 5, 1, 2)
    stored_BHKV = torch.tensor([[1.0], [0.0]], dtype=torch.float64)[None, None]
    zeros_BTHV = torch.zeros(1, 5, 1, 1, dtype=torch.float64)
    y_BTHV, _ = delta_rule(key_BTHK, key_BTHK, zeros_BTHV, beta * ones.view(1, 5, 1), stored_BHKV)
    assert y_BTHV.flatten().tolist() == expected


def test_deltanet_state_has_a_fixed_size() -> None:
    model = lmzoo.create_model("deltanet", vocab_size=13, d_model=32, n_layers=2, n_heads=4)
    assert model.state_bytes(10) == model.state_bytes(1000) == 2 * 4 * (3 * 3 * 32 + 4 * 8 * 8)
    assert model.traits.state_growth == "constant"


def test_deltanet_compiles_in_one_graph_with_the_same_gradients() -> None:
    model = lmzoo.create_model("deltanet", vocab_size=13, d_model=32, n_layers=1, n_heads=2)
    idx = random_tokens(13, 2, 40)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    parameters = list(model.parameters())
    actual = torch.autograd.grad(compiled(idx[:, :-1], idx[:, 1:])[1], parameters)
    expected = torch.autograd.grad(model(idx[:, :-1], idx[:, 1:]).loss, parameters)
    for got, want in zip(actual, expected, strict=True):
        torch.testing.assert_close(got, want)
