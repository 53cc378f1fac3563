"""Stacks of matrices whose matrices do not lie in the last two axes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lmzoo.conformance.stacks import UseOfStacks

H, K, J = 2, 3, 5
HEADS = torch.randn(4, H, K)


@pytest.mark.parametrize(
    ("shape", "use", "axis"),
    [
        ((H, K, J), lambda weight: torch.einsum("bhk,hkj->bhj", HEADS, weight), None),
        ((H, K, J), lambda weight: HEADS.transpose(0, 1) @ weight, None),
        ((K, H, J), lambda weight: torch.einsum("bhk,khj->bhj", HEADS, weight.double().float()), 1),
        ((K, J, H), lambda weight: torch.einsum("kjh,bhk->bhj", weight, HEADS), 2),
        ((K, H, J), lambda weight: HEADS.transpose(0, 1) @ weight.transpose(0, 1), 1),
        ((K, J, H), lambda weight: torch.bmm(HEADS.transpose(0, 1), weight.permute(2, 0, 1)), 2),
        ((H, J, K), lambda weight: torch.bmm(HEADS.transpose(0, 1), weight.permute((0, 2, 1))), None),
        # No stack: one map from several axes, a matrix that was taken out, a sum of maps, a product with a matrix.
        ((H, K, J), lambda weight: torch.einsum("bhk,hkj->bj", HEADS, weight), None),
        ((K, H, J), lambda weight: HEADS[:, 0] @ weight[:, 0], None),
        ((H, K, J), lambda weight: weight.permute(1, 2, 0) @ HEADS[0, :, 0], None),
        ((H, K, J), lambda weight: weight.transpose(0, 1) @ torch.ones(J, 2), None),
    ],
)
def test_use_of_stacks_finds_the_axis_that_counts_the_matrices(
    shape: tuple[int, int, int], use: Callable[[Tensor], Tensor], axis: int | None
) -> None:
    weight = torch.nn.Parameter(torch.randn(shape))
    with UseOfStacks({id(weight): "mixer.weight"}) as seen:
        use(weight)
    assert (f"mixer.weight is a stack of matrices along axis {axis}," in seen.found) is (axis is not None)
    assert bool(seen.found) is (axis is not None)
