"""Experts: the definition token by token, independence from other tokens, and the two ways to balance the load."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lmzoo import losses
from lmzoo.errors import ConfigError
from lmzoo.layers.experts import BIAS_GRADIENT, Experts
from tests.layers.decoded import perturbed, random


def make(**settings: object) -> Experts:
    return perturbed(Experts(6, 5, 4, 2, **settings))


def by_definition(layer: Experts, x_D: Tensor) -> Tensor:
    """Computes the equations of the card for one token."""
    p_E = (layer.router.weight @ x_D).softmax(0)
    scores_E = p_E if layer.choice_bias is None else p_E + layer.choice_bias
    chosen = sorted(range(4), key=lambda e: (-scores_E[e].item(), e))[:2]
    y_D = torch.zeros_like(x_D)
    for e in chosen:
        gate, up = (layer.up[e] @ x_D).chunk(2)
        y_D = y_D + p_E[e] / p_E[chosen].sum() * (layer.down[e] @ (F.silu(gate) * up))
    return y_D


@pytest.mark.parametrize("settings", [{}, {"balance_bias": True}], ids=["plain", "bias"])
def test_experts_equal_their_definition_for_each_token(settings: dict[str, object]) -> None:
    layer, x = make(**settings), random(3, 7, 6)
    expected = torch.stack([by_definition(layer, x_D) for x_D in x.flatten(0, 1)]).view_as(x)
    torch.testing.assert_close(layer(x), expected)
    torch.testing.assert_close(layer(x[:1, :2]), expected[:1, :2])


def test_experts_refuse_a_router_without_a_gradient() -> None:
    with pytest.raises(
        ConfigError, match=r"^top_k=1 needs normalize=False: the normalized weight of one expert is alw"
    ):
        Experts(6, 5, 4, 1)
    layer = perturbed(Experts(6, 5, 4, 1, normalize=False))
    layer(random(2, 3, 6)).sum().backward()
    assert layer.router.weight.grad.abs().max() > 1e-3


def test_experts_break_ties_by_number() -> None:
    layer, x = make(), random(1, 3, 6)
    with torch.no_grad():
        layer.router.weight.zero_()
        layer.down[2:].zero_()
    first_two = layer(x)
    with torch.no_grad():
        layer.up[2:].mul_(5)
    assert torch.equal(layer(x), first_two)
    assert first_two.abs().max() > 0


def test_experts_take_no_tokens() -> None:
    with losses.collect_auxiliary(True) as named:
        assert make(balance_loss=0.5).train()(torch.empty(0, 5, 6, dtype=torch.float64)).shape == (0, 5, 6)
    assert named["balance"] == 0


@pytest.mark.parametrize("shape", [(4, 16), (1, 1)])
def test_experts_balance_loss_equals_the_switch_paper(shape: tuple[int, int]) -> None:
    """`E sum_e load_e p_e` is top_k for an even load, and larger otherwise."""
    layer, x = make(balance_loss=0.5).train(), random(*shape, 6)
    with losses.collect_auxiliary(True) as named:
        layer(x)
    p_NE = (x.flatten(0, 1) @ layer.router.weight.T).softmax(-1)
    load_E = F.one_hot(p_NE.topk(2).indices, 4).sum(1).double().mean(0)
    torch.testing.assert_close(named["balance"], 0.5 * 4 * (load_E * p_NE.mean(0)).sum())
    assert set(named) == {"balance"}


def test_experts_balance_bias_has_the_sign_rule_as_its_gradient() -> None:
    layer, x = make(balance_bias=True).train(), random(4, 16, 6)
    with losses.collect_auxiliary(True) as named:
        layer(x)
    (gradient,) = torch.autograd.grad(named["balance_bias"], layer.choice_bias)
    p_NE = (x.flatten(0, 1) @ layer.router.weight.T).softmax(-1)
    load_E = F.one_hot((p_NE + layer.choice_bias).topk(2).indices, 4).sum(1).double().mean(0)
    torch.testing.assert_close(gradient, BIAS_GRADIENT * (load_E - load_E.mean()).sign())
    assert gradient.any()
    assert gradient.norm() < 0.01, "the biases have no share in a gradient norm that is clipped at 1"


def test_experts_balance_bias_evens_out_the_load() -> None:
    """Small steps against its gradient make the loads more equal."""
    layer, x = make(balance_bias=True).train(), random(8, 32, 6)

    def spread() -> float:
        scores_NE = (x.flatten(0, 1) @ layer.router.weight.T).softmax(-1) + layer.choice_bias
        return F.one_hot(scores_NE.topk(2).indices, 4).sum(1).double().mean(0).std().item()

    before = spread()
    for _ in range(100):
        with losses.collect_auxiliary(True) as named:
            layer(x)
        (gradient,) = torch.autograd.grad(named["balance_bias"], layer.choice_bias)
        with torch.no_grad():
            layer.choice_bias.sub_(0.01 * gradient / BIAS_GRADIENT)
    assert spread() < 0.2 * before


def test_experts_report_nothing_in_eval_mode_or_unless_asked() -> None:
    with losses.collect_auxiliary(True) as named:
        make(balance_loss=0.5, balance_bias=True)(random(1, 4, 6))
        make().train()(random(1, 4, 6))
    assert named == {}


def test_experts_balance_bias_starts_at_zero() -> None:
    assert not Experts(6, 5, 4, 2, balance_bias=True).choice_bias.any()


def test_experts_declare_reach_flops_and_active_share() -> None:
    layer = Experts(6, 5, 4, 2)
    assert layer.reach == 1
    assert layer.flops(10) == 2 * 2 * 3 * 6 * 5
    assert layer.active == {"up": 0.5, "down": 0.5}
    assert layer.parameter_roles == {"up": "matrices", "down": "matrices"}
