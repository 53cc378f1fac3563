"""DeepSeek's experts: the definition token by token, groups, and the balance loss."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lmzoo import losses
from lmzoo.layers.shared_experts import SharedExperts
from tests.layers.decoded import perturbed, random


def make(**settings: object) -> SharedExperts:
    layer = perturbed(SharedExperts(6, 5, 8, 4, **settings))
    with torch.no_grad():
        layer.router.weight.mul_(3)
    return layer


def by_definition(layer: SharedExperts, x_D: Tensor) -> Tensor:
    """Computes the equations of the card for one token."""
    logits_E = layer.router.weight @ x_D
    affinity = (logits_E.sigmoid() if layer.sigmoid else logits_E.softmax(0)).tolist()
    bias = [0.0] * 8 if layer.choice_bias is None else layer.choice_bias.tolist()
    score = [a + b for a, b in zip(affinity, bias, strict=True)]
    size = 8 // layer.n_groups
    groups = [range(g * size, (g + 1) * size) for g in range(layer.n_groups)]
    counted = 4 // layer.top_groups if layer.sigmoid else 1
    groups.sort(key=lambda group: -sum(sorted((score[e] for e in group), reverse=True)[:counted]))
    allowed = [e for group in groups[: layer.top_groups] for e in group]
    chosen = sorted(allowed, key=lambda e: -score[e])[:4]
    total = sum(affinity[e] for e in chosen) + layer.share_eps if layer.normalize else 1.0
    y_D = torch.zeros_like(x_D)
    for e in chosen:
        y_D = y_D + layer.scale * affinity[e] / total * (layer.down[e] @ inner(layer, layer.up[e] @ x_D))
    if layer.shared is not None:
        y_D = y_D + layer.shared.down.weight @ inner(layer, layer.shared.up.weight @ x_D)
    return y_D


def inner(layer: SharedExperts, up_F: Tensor) -> Tensor:
    """Computes the inner features of an expert."""
    if layer.activation is torch.tanh:  # not gated
        return up_F.tanh()
    gate, up = up_F.chunk(2)
    return F.silu(gate) * up


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"n_groups": 4, "top_groups": 2, "scale": 2.5, "n_shared": 2, "share_eps": 0.5},
        {"sigmoid": False, "normalize": False, "balance_bias": False, "n_shared": 0},
        {"sigmoid": False, "n_groups": 4, "top_groups": 2, "balance_bias": False},
        {"activation": torch.tanh, "gated": False, "n_shared": 2},
    ],
    ids=["v3", "v3, groups", "v2", "v2, groups", "plain"],
)
def test_shared_experts_equal_their_definition_for_each_token(settings: dict[str, object]) -> None:
    layer, x = make(**settings), random(3, 7, 6)
    expected = torch.stack([by_definition(layer, x_D) for x_D in x.flatten(0, 1)]).view_as(x)
    torch.testing.assert_close(layer(x), expected)


def test_shared_experts_in_groups_differ_from_those_without() -> None:
    grouped, free, x = make(n_groups=4, top_groups=2), make(), random(3, 7, 6)
    assert (grouped(x) - free(x)).abs().max() > 1e-3
    scores = torch.tensor([[0.9, 0.1, 0.6, 0.5, 0.8, 0.0, 0.2, 0.2]])
    kept = grouped.in_best_groups(scores)
    assert kept.isfinite().nonzero()[:, 1].tolist() == [0, 1, 2, 3], "the sum of two: 1.0, 1.1, 0.8 and 0.4"


def test_shared_experts_score_a_group_by_as_many_experts_as_a_token_takes_from_it() -> None:
    scores = torch.tensor([[0.9, 0.1, 0.1, 0.1, 0.5, 0.4, 0.4, 0.4]])
    for top_k, best in ((1, [0, 1, 2, 3]), (2, [0, 1, 2, 3]), (4, [4, 5, 6, 7])):
        layer = SharedExperts(6, 5, 8, top_k, n_groups=2, top_groups=1, normalize=False)
        assert layer.in_best_groups(scores).isfinite().nonzero()[:, 1].tolist() == best
    softmax = SharedExperts(6, 5, 8, 4, n_groups=2, top_groups=1, sigmoid=False)
    assert softmax.in_best_groups(scores).isfinite().nonzero()[:, 1].tolist() == [0, 1, 2, 3], "by its largest"
    scores = torch.tensor([[0.9, 0.0, 0.0, 0.0, 0.5, 0.5, 0.5, 0.5, 0.8, 0.0, 0.0, 0.0]])
    for top_k in (1, 2):
        layer = SharedExperts(6, 5, 12, top_k, n_groups=3, top_groups=2, normalize=False)
        kept = layer.in_best_groups(scores).isfinite().nonzero()[:, 1].tolist()
        assert kept == [0, 1, 2, 3, 8, 9, 10, 11], "by one expert of each group"


def test_shared_experts_balance_loss_is_its_equation() -> None:
    """An even load gives the coefficient itself: here every expert has the same affinity, whatever is chosen."""
    layer, x = make(balance_loss=0.5), random(3, 7, 6)
    with losses.collect_auxiliary(True) as named:
        layer.train()(x)
    affinity_NE = (x.flatten(0, 1) @ layer.router.weight.T).sigmoid()
    _, chosen_NK, _ = layer.route(x.flatten(0, 1))
    load_E = torch.bincount(chosen_NK.flatten(), minlength=8) / 21
    share_E = (affinity_NE / affinity_NE.sum(-1, keepdim=True)).mean(0)
    torch.testing.assert_close(named["balance"], 0.5 * 8 / 4 * (load_E * share_E).sum())
    with torch.no_grad(), losses.collect_auxiliary(True) as even:
        layer.router.weight.zero_()
        layer(x)
    assert even["balance"].item() == pytest.approx(0.5)


def test_shared_experts_stay_finite_when_all_affinities_vanish() -> None:
    layer = SharedExperts(6, 5, 8, 4)
    with torch.no_grad():
        layer.router.weight.fill_(-1e4)
    assert layer(torch.ones(1, 2, 6)).isfinite().all()


def test_shared_experts_count_the_active_share() -> None:
    layer = make(n_shared=2)
    assert layer.active == {"up": 0.5, "down": 0.5}
    assert layer.flops(9) == 2 * 4 * 3 * 6 * 5
    assert layer.shared is not None
    assert layer.shared.d_ff == 10
