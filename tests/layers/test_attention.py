"""Attention: its definition, decoding in pieces, and the steps that variants override."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lmzoo.errors import ConfigError
from lmzoo.layers.attention import Attention
from lmzoo.layers.context import Rope
from lmzoo.layers.norm import AllHeadsRMSNorm, RMSNorm, each_head
from lmzoo.ops.attention import naive_attention
from lmzoo.ops.rope import apply_rope
from tests.layers.decoded import context, in_one_call, in_pieces, perturbed, random

FORMS = {
    "plain": {},
    "grouped": {"n_kv_heads": 2, "rope": Rope()},
    "window": {"window": 3, "rope": Rope(theta=50.0)},
    "partial rotary, odd width": {"head_dim": 5, "rope": Rope(fraction=0.5), "bias": True},
    "norm per head": {"n_kv_heads": 2, "rope": Rope(), "qk_norm": each_head(RMSNorm)},
    "norm over heads, scale": {"n_kv_heads": 2, "rope": Rope(), "qk_norm": AllHeadsRMSNorm, "scale": 0.3},
}


@pytest.mark.parametrize("form", FORMS)
def test_attention_equals_its_definition(form: str) -> None:
    layer, x = perturbed(Attention(12, 4, **FORMS[form])), random(2, 9, 12)
    H, G, K = 4, layer.n_kv_heads, layer.head_dim
    q, k, v = layer.qkv(x).split([H * K, G * K, G * K], dim=-1)
    q, k, v = (part.unflatten(-1, (-1, K)) for part in (q, k, v))
    if layer.q_norm is not None:
        q, k = layer.q_norm(q), layer.k_norm(k)
    if layer.rope is not None:
        table = context(x).rope(layer.rope, K)
        q, k = apply_rope(q, *table), apply_rope(k, *table)
    q = q if layer.scale is None else q * layer.scale * K**0.5
    expected = layer.out(naive_attention(q, k, v, window=layer.window).flatten(2))
    torch.testing.assert_close(in_one_call(layer, x), expected)


@pytest.mark.parametrize("lengths", [(9,), (1,) * 9, (4, 1, 4), (2, 7)])
@pytest.mark.parametrize("form", FORMS)
def test_attention_in_pieces_equals_one_call(form: str, lengths: tuple[int, ...]) -> None:
    layer, x = perturbed(Attention(12, 4, **FORMS[form])), random(2, 9, 12)
    torch.testing.assert_close(in_pieces(layer, x, *lengths), in_one_call(layer, x))


def test_attention_reads_positions_from_the_context() -> None:
    """Rotation is relative, so the same text at another position gives the same output, but other keys."""
    layer, x = perturbed(Attention(12, 4, rope=Rope())), random(1, 5, 12)
    near, far = (layer(x, layer.init_state(1, 5, x), context(x, position)) for position in (0, 1000))
    torch.testing.assert_close(near[0], far[0])
    assert (near[1].k.entries() - far[1].k.entries()).abs().max() > 0.1


@pytest.mark.parametrize(("options", "carried"), [({}, 0), ({"carries": True}, 1)])
def test_attention_leaves_keys_and_values_in_the_context_only_if_asked(options: dict[str, bool], carried: int) -> None:
    """Carried tensors stay in memory until the backward pass, also under activation checkpointing."""
    layer, x = perturbed(Attention(12, 4, **options)), random(1, 5, 12)
    ctx = context(x)
    layer(x, None, ctx)
    assert len(ctx.carry) == carried


def test_attention_drops_weights_in_training_only_if_asked() -> None:
    layer, dropping, x = perturbed(Attention(12, 4)), perturbed(Attention(12, 4, dropout=0.5)), random(1, 5, 12)
    dropping.load_state_dict(layer.state_dict())
    expected = in_one_call(layer, x)
    assert torch.equal(in_one_call(dropping, x), expected)
    assert torch.equal(in_one_call(layer.train(), x), expected)
    assert not torch.allclose(in_one_call(dropping.train(), x), expected)


def test_attention_declares_reach_growth_and_cost() -> None:
    full, windowed = Attention(12, 4), Attention(12, 4, window=3)
    assert (full.reach, full.state_growth) == (None, "linear")
    assert (windowed.reach, windowed.state_growth) == (3, "constant")
    assert full.flops(10) == 4 * 10 * 12


def test_attention_has_biases_only_if_asked_and_may_have_none_in_the_output() -> None:
    plain, layer = Attention(12, 4), Attention(12, 4, bias=True, out_bias=False)
    assert plain.qkv.bias is plain.out.bias is layer.out.bias is None
    assert layer.qkv.bias is not None


def test_attention_variant_overrides_one_step() -> None:
    class Doubled(Attention):
        def merge(self, y_BTHK: Tensor, x_BTD: Tensor) -> Tensor:
            return super().merge(y_BTHK, x_BTD) + x_BTD

    layer, x = perturbed(Doubled(12, 4)), random(2, 5, 12)
    torch.testing.assert_close(in_pieces(layer, x, 2, 3), in_one_call(layer, x))
    torch.testing.assert_close(in_one_call(layer, x) - x, layer.out(_heads(layer, x)))


def _heads(layer: Attention, x: Tensor) -> Tensor:
    q, k, v = layer.project(x, context(x))
    return layer.attend(q, k, v).flatten(2)


def test_attention_names_heads_that_do_not_divide() -> None:
    """Also without a config, whose rules would find it: 8 // 3 would give three heads of width 2."""
    for arguments, message in (
        ({"n_heads": 3}, "n_heads=3 must divide d_model=8, or head_dim must be given"),
        ({"n_heads": 0}, "n_heads=0 must divide d_model=8"),
        ({"n_heads": 4, "n_kv_heads": 3}, "n_kv_heads=3 must divide n_heads=4"),
    ):
        with pytest.raises(ConfigError, match=message):
            Attention(8, **arguments)
    assert Attention(8, 3, head_dim=4).widths == [12, 12, 12]
