"""The projections of a mixer's heads, and their transfer from one mixer to another.

Legend: D model width, H heads of queries, keys or values, K width of a head.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

REPEATED = ("k", "v")  # fewer heads of keys and values serve several heads of queries, each of which may get a copy


@dataclass(frozen=True)
class Projection:
    """A view of the weights that map features to heads, or heads to features: writing to it changes the parameters.

    `weight` is (H, K, D), for both directions. More axes in front hold several projections of the same kind, such as
    the keys of several steps. `bias` is (H, K), or (D,) for the output.
    """

    weight: Tensor
    bias: Tensor | None = None


def split_rows(linear: nn.Linear, **heads: tuple[int, ...]) -> dict[str, Projection]:
    """Divides the rows of a fused projection into named parts of the shapes `heads`, such as `q=(n_heads, head_dim)`.

    The parts follow each other in the order of the arguments; the shape (N, H, K) stands for N projections.
    """
    sizes = [math.prod(shape) for shape in heads.values()]
    weights = linear.weight.split(sizes)
    biases = [None] * len(sizes) if linear.bias is None else linear.bias.split(sizes)
    return {
        name: Projection(weight.unflatten(0, shape), None if bias is None else bias.unflatten(0, shape))
        for (name, shape), weight, bias in zip(heads.items(), weights, biases, strict=True)
    }


def output(linear: nn.Linear, n_heads: int, width: int) -> Projection:
    """Returns the projection of the concatenated heads (H K) to features (D)."""
    return Projection(linear.weight.unflatten(1, (n_heads, width)).permute(1, 2, 0), linear.bias)


@torch.no_grad()
def transfer(source: Mapping[str, Projection], target: Mapping[str, Projection]) -> list[str]:
    """Copies the projections of `source` that fit into `target`; returns their names, in the order of `source`.

    A projection fits if head count, head width and model width are equal. Keys and values of G heads are repeated for a
    target that needs more, at most one for each of the H heads of queries: query head h reads head h // (H / G), as in
    attention. The output is copied only with the values that it reads. A bias that only the target has becomes 0.
    """
    taken: list[str] = []
    for name, given in source.items():
        if name not in target or (name == "out" and "v" not in taken):
            continue
        wanted, repeats = target[name], _repeats(name, source, target[name])
        weight = given.weight if repeats == 1 else given.weight.repeat_interleave(repeats, dim=-3)
        if weight.shape != wanted.weight.shape[-weight.ndim :]:
            continue
        wanted.weight.copy_(weight)
        if wanted.bias is not None:
            if given.bias is None:
                wanted.bias.zero_()
            else:
                wanted.bias.copy_(given.bias if repeats == 1 else given.bias.repeat_interleave(repeats, dim=-2))
        taken.append(name)
    return taken


def _repeats(name: str, source: Mapping[str, Projection], wanted: Projection) -> int:
    """Returns how often each head of a projection is needed: more than once only for shared keys and values."""
    heads, needed = source[name].weight.shape[-3], wanted.weight.shape[-3]
    queries = source["q"].weight.shape[-3] if "q" in source else heads
    return needed // heads if name in REPEATED and needed % heads == 0 and queries % needed == 0 else 1
