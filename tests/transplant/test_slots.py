"""Tests where the mixer of a block is found."""

from __future__ import annotations

import pytest

import lmzoo
from lmzoo.errors import ConfigError
from lmzoo.layers.linear_attention import LinearAttention
from lmzoo.layers.stack import blocks_of
from lmzoo.transplant.slots import slot_of, slots_of
from tests.transplant.models import SIZES, trained


@pytest.mark.parametrize(
    ("family", "settings", "mixers"),
    [
        ("gpt2", {}, ["Attention"] * 4),
        ("gpt_neox", {}, ["Attention"] * 4),
        ("gemma3", {}, ["Attention"] * 4),
        ("mamba", {}, ["Mamba"] * 4),
        ("rwkv7", {}, ["TimeMix"] * 4),
        ("engram", {"pattern": "memory plain"}, ["Attention"] * 4),
        ("hyper", {}, ["Attention"] * 4),
        ("xlstm", {"pattern": "mlstm slstm"}, ["MLSTM", "SLSTM"] * 2),
        ("hnet", {"n_layers": 3}, ["Mamba2", "has no mixer in a residual branch", "Mamba2"]),
        ("hybrid", {"pattern": "attention&mamba lstm"}, ["has several mixers side by side", "LSTM"] * 2),
        ("cnn", {}, ["has no mixer in a residual branch"] * 4),
        ("lstm", {}, ["has no mixer in a residual branch"] * 4),
        ("mlp", {"n_layers": None}, []),
    ],
)
def test_slots_of_every_kind_of_block(family: str, settings: dict[str, object], mixers: list[str]) -> None:
    given = {name: value for name, value in {**SIZES, **settings}.items() if value is not None}
    model = lmzoo.create_model(family, device="meta", **given)
    found = [str(slot) if isinstance(slot, ConfigError) else type(slot.mixer).__name__ for slot in slots_of(model)]
    assert found == mixers


def test_put_replaces_the_mixer_and_the_reach_of_its_streams() -> None:
    block = blocks_of(trained("hyper"))[0]
    slot = slot_of(block)
    mixer = LinearAttention(32, 4)
    mixer.reach = 3
    slot.put(mixer)
    assert slot_of(block).mixer is mixer
    assert slot.parent.reach == 3
