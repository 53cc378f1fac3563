"""Tests where the mixer of a block is found."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import lmzoo
from lmzoo.errors import ConfigError
from lmzoo.layers.context import Context
from lmzoo.layers.gla import GLA
from lmzoo.layers.linear_attention import LinearAttention
from lmzoo.layers.short_conv import ShortConv
from lmzoo.layers.stack import Residual, Stack, blocks_of
from lmzoo.transplant.slots import slot_of, slots_of
from lmzoo.transplant.weights import move
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


class Mean(nn.Module):
    """A mixer that is no `Layer`, with a layer inside that has a state."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = ShortConv(32, 3)

    def init_state(self, batch_size: int, max_len: int, like: Tensor) -> Tensor:
        return self.conv.init_state(batch_size, max_len, like)

    def forward(self, x_BTD: Tensor, state: Tensor | None, ctx: Context) -> tuple[Tensor, Tensor | None]:
        return self.conv(x_BTD, state, ctx)


def test_slot_of_a_branch_takes_any_module_with_a_state() -> None:
    block = Stack([Residual(None, Mean()), Residual(None, nn.Linear(32, 32))])
    assert isinstance(slot_of(block).mixer, Mean)
    two = Stack([Residual(None, GLA(32, 4)), Residual(None, Mean())])
    assert isinstance(slot_of(two).mixer, GLA), "the first one"
    assert move(slot_of(block).mixer, GLA(32, 4), torch.float32, copies=True)[0] == ()
