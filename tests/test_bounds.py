"""Tests the bounds: a number that asks for more than this machine has is refused before it is used."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import lmzoo
from lmzoo import bounds
from lmzoo.errors import ConfigError, InputError


def test_machine_memory_is_what_this_process_may_use() -> None:
    assert 1 << 28 < bounds.machine_memory() < 1 << 50


def test_require_memory_names_both_sizes() -> None:
    bounds.require_memory("a state", 1000)
    with pytest.raises(InputError, match=r"^a state needs .* TB of memory, and this machine has .*B$"):
        bounds.require_memory("a state", 10**15)
    bounds.require_memory("a state", 10**15, torch.device("meta"))


@pytest.mark.parametrize("device", [None, "meta"])
@pytest.mark.parametrize("setting", ["n_layers", "d_model", "context_length", "vocab_size"])
def test_building_stops_models_that_do_not_fit(
    monkeypatch: pytest.MonkeyPatch, device: str | None, setting: str
) -> None:
    monkeypatch.setattr(bounds, "MAX_TENSORS", 1000)
    settings: dict[str, Any] = {"vocab_size": 65, setting: 1 << 37}
    if device == "meta" and setting not in (
        "n_layers",
        "d_model",
    ):  # needs no memory there, so that large models can be counted
        lmzoo.create_model("gpt2.tiny", device=device, **settings)
        return
    with pytest.raises(ConfigError, match=f"{setting}={1 << 37}.* asks for"):
        lmzoo.create_model("gpt2.tiny", device=device, **settings)


def test_building_keeps_other_errors() -> None:
    with pytest.raises(RuntimeError, match="a bug"), bounds.building(lmzoo.ModelConfig(vocab_size=3)):
        raise RuntimeError("a bug")


def test_building_removes_its_hooks() -> None:
    with bounds.building(lmzoo.ModelConfig(vocab_size=3)):
        torch.nn.Linear(2, 2)
    assert not torch.nn.modules.module._global_parameter_registration_hooks
    assert not torch.nn.modules.module._global_buffer_registration_hooks
