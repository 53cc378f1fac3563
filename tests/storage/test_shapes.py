"""Tests the comparison of two models by the names and shapes of their tensors."""

from __future__ import annotations

import pytest
from torch import nn

import lmzoo
from lmzoo.errors import ConfigError
from lmzoo.storage.shapes import changed_config, difference


def test_difference_names_the_first_tensor_in_words() -> None:
    small, wide, bare = nn.Linear(2, 3), nn.Linear(2, 4), nn.Linear(2, 3, bias=False)
    assert difference(small, nn.Linear(2, 3)) == ""
    assert difference(small, wide) == "it changes the shape of weight from (3, 2) to (4, 2)"
    assert difference(small, bare) == "it removes bias"
    assert difference(bare, small) == "it adds bias"


def test_changed_config_keeps_the_shapes() -> None:
    model = lmzoo.create_model("llama", vocab_size=9, d_model=16, n_layers=2, n_heads=2)
    found = changed_config(model, {"window": 3, "context_length": 99})
    assert (found.window, found.context_length, found.d_model) == (3, 99, 16)
    assert changed_config(model, {}) == model.config
    for changes, message in (
        (
            {"window": 3, "d_ff": 8},
            "d_ff=8 cannot be set in a trained model: it changes the shape of blocks.0.1.inner.up",
        ),
        ({"tie_embeddings": True}, "tie_embeddings=True cannot be set in a trained model: it removes head.weight"),
        ({"windw": 3}, "windw=3 is not a setting of LlamaConfig"),
    ):
        with pytest.raises(ConfigError, match=message):
            changed_config(model, changes)
