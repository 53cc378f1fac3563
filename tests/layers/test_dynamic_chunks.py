"""Dynamic chunking compared with a loop over its equations, its gradients in training, and decoding in pieces."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lmzoo import losses
from lmzoo.layers.context import Context
from lmzoo.layers.dynamic_chunks import DynamicChunks
from lmzoo.layers.gru import GRU
from lmzoo.layers.norm import RMSNorm
from lmzoo.layers.stack import Residual, Stack
from tests.layers.decoded import context, in_one_call, in_pieces, perturbed, random


def make_layer(**options: float) -> DynamicChunks:
    """Returns a layer whose main network is recurrent and small."""
    main = Stack([Residual(RMSNorm(8), GRU(8)), RMSNorm(8)])
    layer = perturbed(DynamicChunks(8, RMSNorm(8), main, **options))
    assert isinstance(layer, DynamicChunks)
    return layer


def by_equations(layer: DynamicChunks, x_BTD: Tensor, *, training: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Computes the equations of the card, one row and one token at a time; also returns choices and probabilities."""
    outputs, choices, probabilities = [], [], []
    for x_TD in layer.before(x_BTD):
        q, k = x_TD @ layer.q.weight.T, x_TD @ layer.k.weight.T
        p = [torch.ones((), dtype=x_TD.dtype)]
        p += [(1 - F.cosine_similarity(q[t], k[t - 1], dim=0)) / 2 for t in range(1, len(x_TD))]
        starts = [t for t in range(len(x_TD)) if p[t] >= 0.5]
        y, _ = layer.main(x_TD[None, starts], None, Context(0, len(starts), x_TD.device, x_TD.dtype))
        s, values = torch.zeros_like(x_TD[0]), []
        for t in range(len(x_TD)):
            if t in starts:
                s = p[t] * y[0, starts.index(t)] + (1 - p[t]) * s
            sure = p[t] if t in starts else 1 - p[t]
            factor = sure / sure.detach() if training else 1.0  # the value 1, and the gradient of log sure
            values.append(s + (factor - 1.0) * s * sure.detach())
        outputs.append(torch.stack(values) + x_TD @ layer.direct.weight.T)
        choices.append(torch.tensor([t in starts for t in range(len(x_TD))]))
        probabilities.append(torch.stack(p))
    return torch.stack(outputs), torch.stack(choices), torch.stack(probabilities)


def test_dynamic_chunks_equal_their_equations() -> None:
    layer, x = make_layer(), random(3, 23, 8)
    expected, choices, _ = by_equations(layer, x)
    assert len({*choices.sum(1).tolist()}) > 1, "the rows must have different numbers of chunks"
    torch.testing.assert_close(in_one_call(layer, x), expected, atol=1e-6, rtol=0)  # the epsilon of the cosine differs


@pytest.mark.parametrize("lengths", [(17, 1, 1, 20), (1,) * 5 + (34,), (1, 2, 2, 34)])
def test_dynamic_chunks_in_pieces_equal_one_call(lengths: tuple[int, ...]) -> None:
    layer, x = make_layer(), random(3, 39, 8)
    torch.testing.assert_close(in_pieces(layer, x, *lengths), in_one_call(layer, x))


def test_dynamic_chunks_of_equal_tokens_are_one_chunk_in_every_piece() -> None:
    """Pieces in which no row begins a chunk."""
    layer = DynamicChunks(8, RMSNorm(8), Stack([Residual(RMSNorm(8), GRU(8))])).double().eval()
    x = random(2, 1, 8).expand(-1, 9, -1)
    y = in_pieces(layer, x, 1, 3, 5)
    torch.testing.assert_close(y, in_one_call(layer, x))
    torch.testing.assert_close(y, y[:, :1].expand(-1, 9, -1))


def test_dynamic_chunks_rows_do_not_depend_on_each_other() -> None:
    layer, x = make_layer(), random(3, 23, 8)
    torch.testing.assert_close(in_one_call(layer, x[1:2]), in_one_call(layer, x)[1:2])


def test_dynamic_chunks_straight_through_gradients_in_training() -> None:
    """Choices have no gradient; a factor of 1 gives each probability that of the choice that it supports."""
    layer, x = make_layer(ratio_loss=0.0), random(2, 15, 8)
    weights = random(2, 15, 8, seed=3)
    for training in (False, True):
        layer.train(training)
        y, _ = layer(x, None, context(x))
        expected, *_ = by_equations(layer, x, training=training)
        found, wanted = (torch.autograd.grad((out * weights).sum(), layer.q.weight)[0] for out in (y, expected))
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)
        torch.testing.assert_close(y, expected, atol=1e-6, rtol=0)


def test_dynamic_chunks_ratio_loss_is_the_paper_s() -> None:
    """It is `ratio_loss` when the share of choices and the mean probability are 1 / chunk_length."""
    layer, x = make_layer(ratio_loss=0.5, chunk_length=3.0).train(), random(2, 15, 8)
    with losses.collect_auxiliary(wanted=True) as named:
        layer(x, None, context(x))
    _, choices, p = by_equations(layer, x)
    share, mean, N = choices.double().mean(), p.mean(), 3.0
    torch.testing.assert_close(named["ratio"], 0.5 * N / (N - 1) * ((N - 1) * share * mean + (1 - share) * (1 - mean)))


def test_dynamic_chunks_begin_with_the_first_token_and_identity_maps() -> None:
    layer, x = DynamicChunks(8, RMSNorm(8), Stack([RMSNorm(8)])), random(2, 5, 8).float()
    p, key = layer.route(x, None, context(x))
    assert torch.equal(p[:, 0], torch.ones(2))
    torch.testing.assert_close(key, x[:, -1])
    torch.testing.assert_close(p[:, 1:], (1 - F.cosine_similarity(x[:, 1:], x[:, :-1], dim=-1)) / 2)
    assert not layer.direct.weight.any()


def test_dynamic_chunks_values_are_float32_in_a_bfloat16_model() -> None:
    layer = DynamicChunks(8, RMSNorm(8), Stack([RMSNorm(8)])).bfloat16()
    state = layer.init_state(3, 9, torch.zeros(0, dtype=torch.bfloat16))
    assert (state.key.dtype, state.smoothed.dtype) == (torch.bfloat16, torch.float32)
