"""Tests the coordinate check."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import lmzoo
from lmzoo.conformance.coordinates import activations, at_width, coordinate_check, exponent, roles_of_modules
from lmzoo.errors import ConfigError


def test_exponent_of_a_power_law() -> None:
    widths = (64, 128, 256)
    assert exponent(widths, [3 * width**-0.5 for width in widths]) == pytest.approx(-0.5)
    assert exponent(widths, [2.0, 2.0, 2.0]) == pytest.approx(0)
    assert exponent(widths, [0.0, 1.0, 1.0]) is None


def test_at_width_keeps_the_proportions_of_a_preset() -> None:
    preset = lmzoo.create_model("llama.tiny", vocab_size=67, device="meta").config
    config = at_width("llama.tiny", 2 * preset.d_model, torch.Generator().manual_seed(0)).config
    assert (config.d_model, config.d_ff) == (2 * preset.d_model, 2 * preset.d_ff)
    assert config.n_layers == preset.n_layers
    with pytest.raises(ConfigError, match="bigram has no width"):
        at_width("bigram", 64, torch.Generator())


def test_roles_of_modules_and_their_activations() -> None:
    model = at_width("gpt2.tiny", 32, torch.Generator().manual_seed(0))
    roles = roles_of_modules(model)
    assert roles["tokens"] == roles["positions"] == "embedding"
    assert roles["blocks.0.up"] == "matrix"
    assert roles["norm"] == "vector"
    assert "" not in roles, "the model itself owns no parameter"
    assert "blocks.0" not in roles
    idx_BT = torch.randint(67, (2, 5))
    sizes = activations(model, idx_BT)
    assert sizes["norm"] == sizes["features"]
    assert sizes["logits"] == pytest.approx(model(idx_BT).logits.square().mean().sqrt().item())
    with torch.no_grad():
        embedding = model.get_submodule("tokens")
        assert isinstance(embedding, nn.Embedding)
        embedding.weight.mul_(3)
    assert activations(model, idx_BT)["tokens"] == pytest.approx(3 * sizes["tokens"])


def test_coordinate_check_sees_how_activations_depend_on_the_width() -> None:
    """Normalized features keep their size; logits of a fresh matrix with a fixed deviation grow as width^0.5."""
    found = coordinate_check("llama.tiny", (32, 64, 128), steps=2)
    assert found["widths"] == [32, 64, 128]
    assert set(found["roles"]) >= {"embedding", "matrix", "vector", "features", "logits"}
    assert abs(found["roles"]["features"]["start_exponent"]) < 0.05
    for entry in (*found["roles"].values(), *found["modules"].values()):
        assert len(entry["start"]) == len(entry["end"]) == 3
        assert all(math.isfinite(value) for value in (*entry["start"], *entry["end"]))
    assert found["roles"]["logits"]["start"] != found["roles"]["logits"]["end"], "the steps change the model"
    assert found["roles"]["logits"]["end"] == pytest.approx(found["roles"]["logits"]["start"], rel=0.5), "a little"
    assert found == coordinate_check("llama.tiny", (32, 64, 128), steps=2), "seeded"


def test_coordinate_check_takes_the_mean_over_the_modules_of_a_role() -> None:
    found = coordinate_check("gpt2.tiny", (32,), steps=0)
    sizes = [entry["start"][0] for entry in found["modules"].values() if entry["role"] == "matrix"]
    assert found["roles"]["matrix"]["modules"] == len(sizes) > 1
    assert found["roles"]["matrix"]["start"] == [pytest.approx(sum(sizes) / len(sizes))]


def test_activations_are_those_of_eval_mode() -> None:
    model = lmzoo.create_model("gpt2.tiny", vocab_size=67, dropout=0.5).train()
    idx_BT = torch.randint(67, (2, 5), generator=torch.Generator().manual_seed(0))
    assert activations(model, idx_BT) == activations(model.eval(), idx_BT)
