"""DeepSeek sparse attention: its choices, the indexer's loss by its equation, and decoding in pieces."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lmzoo import losses
from lmzoo.layers.context import Rope
from lmzoo.layers.dsa import DSA
from lmzoo.layers.latent_attention import LatentAttention
from lmzoo.ops.stable_topk import choosing
from tests.layers.decoded import context, declared_and_counted_flops, in_one_call, in_pieces, perturbed, random

SIZES = {"q_rank": 6, "kv_rank": 10, "nope_dim": 5, "rope_dim": 4, "v_dim": 3, "index_heads": 3, "index_dim": 7}


def make(**settings: object) -> DSA:
    return perturbed(DSA(12, 3, **{**SIZES, "top_keys": 4, **settings}))


def test_dsa_with_all_keys_is_latent_attention() -> None:
    layer, x = make(top_keys=9, rope=Rope(50.0)), random(2, 9, 12)
    plain = LatentAttention(12, 3, **{k: v for k, v in SIZES.items() if "index" not in k}, rope=Rope(50.0)).double()
    plain.load_state_dict({name: w for name, w in layer.state_dict().items() if not name.startswith("index")})
    torch.testing.assert_close(in_one_call(layer, x), in_one_call(plain, x))


def chosen_by(layer: DSA, x: Tensor) -> Tensor:
    """Returns the chosen positions (B, T, N)."""
    seen: list[Tensor] = []

    def note(_: Tensor, indices: Tensor) -> Tensor:
        seen.append(indices)
        return indices

    with choosing(note):
        in_one_call(layer, x)
    (chosen,) = seen
    return chosen


def test_dsa_chooses_the_first_keys_if_all_scores_are_equal() -> None:
    layer, x = make(), random(1, 10, 12)
    with torch.no_grad():
        layer.index_weights.weight.zero_()
    chosen = chosen_by(layer, x)
    assert (chosen[:, 3:] == torch.arange(4)).all()


def test_dsa_reads_the_chosen_keys_and_no_others() -> None:
    layer, x = make(), random(1, 10, 12)
    chosen = chosen_by(layer, x)
    x.requires_grad_()
    y, _ = layer(x, None, context(x))
    for t in range(10):
        (gradient,) = torch.autograd.grad(y[0, t].sum(), x, retain_graph=True)
        read = set(gradient[0].abs().sum(-1).nonzero().flatten().tolist())
        assert read | {t} == {s for s in chosen[0, t].tolist() if s <= t} | {t}, t


@pytest.mark.parametrize("lengths", [(9,), (1,) * 9, (4, 1, 4), (2, 7), (8, 1)])
@pytest.mark.parametrize("top_keys", [1, 4, 30])
def test_dsa_in_pieces_equals_one_call(top_keys: int, lengths: tuple[int, ...]) -> None:
    layer, x = make(top_keys=top_keys), random(2, 9, 12)
    torch.testing.assert_close(in_pieces(layer, x, *lengths), in_one_call(layer, x))


def test_dsa_loss_is_the_divergence_over_the_chosen_keys() -> None:
    """Computed token by token from the attention of a layer that reads everything, limited to the chosen keys."""
    layer, x = make().train(), random(2, 9, 12)
    H, K, N, R = layer.n_heads, layer.head_dim, layer.nope_dim, layer.kv_rank
    with losses.collect_auxiliary(True) as named:
        layer(x, None, context(x))
    low = layer.low(x)
    q, cache = layer.project(x, low, context(x))
    kv = layer.kv_up(cache[..., :R]).unflatten(-1, (H, -1))
    index_q, index_k, _ = layer.index(x, low, context(x))
    weights = x @ layer.index_weights.weight.T / (3 * 7) ** 0.5
    total = torch.zeros(())
    for b in range(2):
        for t in range(9):
            scores = torch.stack(
                [(weights[b, t] * torch.relu(index_q[b, t] @ index_k[b, s])).sum() for s in range(t + 1)]
            )
            chosen = sorted(range(t + 1), key=lambda s: (-scores[s].item(), s))[:4]
            attention = torch.zeros(len(chosen), dtype=torch.float64)
            for h in range(H):
                each = [q[b, t, h, :N] @ kv[b, s, h, :N] + q[b, t, h, N:] @ cache[b, s, R:] for s in chosen]
                attention += (torch.stack(each) * K**-0.5).softmax(0) / H
            total = total + (attention * (attention.log() - scores[chosen].log_softmax(0))).sum() / 18
    torch.testing.assert_close(named["index"], total)


def test_dsa_loss_changes_the_indexer_alone() -> None:
    layer, x = make().train(), random(2, 9, 12).requires_grad_()
    with losses.collect_auxiliary(True) as named:
        layer(x, None, context(x))
    named["index"].backward()
    assert x.grad is None
    for name, parameter in layer.named_parameters():
        assert (parameter.grad is not None and bool(parameter.grad.any())) == name.startswith("index"), name


@pytest.mark.parametrize("scale", [0.0, 1e3])
def test_dsa_loss_is_finite_at_extreme_scores(scale: float) -> None:
    layer, x = make().float().train(), random(2, 9, 12).float()
    with torch.no_grad():
        layer.index_weights.weight.mul_(scale)
        layer.q.weight.mul_(scale)
    with losses.collect_auxiliary(True) as named:
        layer(x, None, context(x))
    named["index"].backward()
    assert named["index"].isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in layer.parameters())


def test_dsa_has_no_loss_in_eval_mode() -> None:
    layer, x = make(), random(2, 9, 12)
    with losses.collect_auxiliary(True) as named:
        layer(x, None, context(x))
    assert not named


@pytest.mark.parametrize("T", [3, 20])
def test_dsa_declares_its_flops(T: int) -> None:
    declared, counted = declared_and_counted_flops(make(), random(2, T, 12))
    assert declared == pytest.approx(counted)
