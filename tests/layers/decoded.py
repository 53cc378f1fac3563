"""Helpers of the layer tests: compare a layer's output in pieces with its output in one call."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lmzoo.flops import counting, declared_flops
from lmzoo.layers.context import Context
from lmzoo.layers.stack import call, init_state


def perturbed(layer: nn.Module, seed: int = 0) -> nn.Module:
    """Returns the layer in float64 and eval mode, with every parameter perturbed."""
    generator = torch.Generator().manual_seed(seed)
    layer = layer.double().eval()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return layer


def random(*shape: int, seed: int = 1) -> Tensor:
    """Returns normal random numbers in float64, the same for the same arguments."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def context(x_BTD: Tensor, position: int = 0) -> Context:
    """Returns the context of a forward pass over x."""
    return Context(position, x_BTD.shape[1], x_BTD.device, x_BTD.dtype)


@torch.no_grad()
def in_one_call(layer: nn.Module, x_BTD: Tensor) -> Tensor:
    """Returns the layer's output without a state."""
    return call(layer, x_BTD, None, context(x_BTD))[0]


def declared_and_counted_flops(layer: nn.Module, x_BTD: Tensor) -> tuple[float, float]:
    """Returns the FLOPs per token that a layer and its children declare, and those that torch counts."""
    B, T = x_BTD.shape[:2]
    with counting() as counter:
        in_one_call(layer.to(x_BTD.dtype), x_BTD)
    return declared_flops(layer, T), counter.get_total_flops() / (B * T)


@torch.no_grad()
def in_pieces(layer: nn.Module, x_BTD: Tensor, *lengths: int) -> Tensor:
    """Returns the layer's output for pieces of these lengths, starting from the initial state."""
    state, start, pieces = init_state(layer, len(x_BTD), 4, x_BTD), 0, []
    for length in lengths:
        piece_BTD = x_BTD[:, start : start + length]
        y_BTD, state = call(layer, piece_BTD, state, context(piece_BTD, start))
        pieces.append(y_BTD)
        start += length
    assert start == x_BTD.shape[1]
    return torch.cat(pieces, dim=1)
