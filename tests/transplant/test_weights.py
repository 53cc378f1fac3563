"""Tests how weights move into a new mixer."""

from __future__ import annotations

import pytest
import torch

from lmzoo.errors import ConfigError
from lmzoo.layers.attention import Attention
from lmzoo.layers.gated_delta import GatedDelta
from lmzoo.layers.norm import RMSNorm, UnitOffsetRMSNorm, each_head
from lmzoo.transplant.weights import copy_kept, move
from tests.transplant.models import trained


def test_copy_kept_names_a_tensor_that_the_source_lacks() -> None:
    with pytest.raises(ConfigError, match=r"blocks.0.0.inner.qkv.bias is not replaced, but the source has no tensor"):
        copy_kept(trained(), trained(attention_bias="qkv"), [])


def test_move_takes_nothing_unless_it_copies() -> None:
    old, new = Attention(32, 4), GatedDelta(32, 4, 8, 8)
    before = {name: p.clone() for name, p in new.named_parameters()}
    assert move(old, new, torch.float32, copies=False) == ((), ("q", "k", "v", "out"), 0)
    assert all(torch.equal(before[name], p) for name, p in new.named_parameters())


def test_move_lets_the_short_convolution_pass_its_input_on() -> None:
    new = GatedDelta(32, 4, 8, 8)
    move(Attention(32, 4), new, torch.float32, copies=True)
    x = torch.randn(1, 5, 96)
    torch.testing.assert_close(new.conv(x, None, None)[0], torch.nn.functional.silu(x))


def test_move_copies_norms_of_the_same_class_only() -> None:
    old = Attention(32, 4, qk_norm=each_head(RMSNorm))
    with torch.no_grad():
        old.q_norm.weight.fill_(3.0)  # type: ignore[union-attr]
    same, other = (Attention(32, 4, qk_norm=each_head(norm)) for norm in (RMSNorm, UnitOffsetRMSNorm))
    taken, lost, size = move(old, same, torch.float32, copies=True)
    assert (taken[4:], lost, size) == (("q_norm.weight", "k_norm.weight"), (), 4 * 32 * 32 + 16)
    assert move(old, other, torch.float32, copies=True)[1] == ("k_norm.weight", "q_norm.weight")
