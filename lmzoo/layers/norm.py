"""Normalization over features (never over time or batch)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lmzoo.ops.precision import wide


class LayerNorm(nn.LayerNorm):
    """Layer normalization (Ba et al. 2016, arXiv 1607.06450): mean 0 and variance 1, then weight and bias."""

    def __init__(self, d_model: int, eps: float = 1e-5, *, weight: bool = True, bias: bool = True) -> None:
        super().__init__(d_model, eps=eps, elementwise_affine=weight, bias=bias)

    def init_parameters(self, generator: torch.Generator | None = None) -> None:
        """Sets the weight to 1 and the bias to 0."""
        self.reset_parameters()


class UnitOffsetLayerNorm(LayerNorm):
    """Layer normalization with the weight stored as its difference from 1, as in Nemotron."""

    def reset_parameters(self) -> None:
        """Sets weight and bias to 0; also called by torch's constructor."""
        for parameter in self.parameters():
            nn.init.zeros_(parameter)

    def forward(self, input: Tensor) -> Tensor:
        """Maps (..., D) to (..., D) in the input's dtype. Computes in float32 or wider: 16 bits round 1 + weight."""
        wide_x = wide(input)
        bias = None if self.bias is None else self.bias.to(wide_x.dtype)
        weight = 1 + self.weight.to(wide_x.dtype)
        return F.layer_norm(wide_x, self.normalized_shape, weight, bias, self.eps).to(input.dtype)


class RMSNorm(nn.RMSNorm):
    """Root mean square normalization (Zhang & Sennrich 2019, arXiv 1910.07467): `weight * x / rms(x)`."""

    def __init__(self, d_model: int, eps: float = 1e-5, *, weight: bool = True) -> None:
        super().__init__(d_model, eps=eps, elementwise_affine=weight)

    def init_parameters(self, generator: torch.Generator | None = None) -> None:
        """Sets the weight to 1."""
        self.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        """Maps (..., D) to (..., D) in the dtype of x. Casts the weight: torch has no fast kernel for mixed dtypes."""
        weight = None if self.weight is None else self.weight.to(x.dtype)
        return F.rms_norm(x, self.normalized_shape, weight, self.eps)


class UnitOffsetRMSNorm(RMSNorm):
    """`(1 + weight) * x / rms(x)`, as in Gemma: the weight starts at 0, so weight decay would pull the factor to 1."""

    def __init__(self, d_model: int, eps: float = 1e-5) -> None:
        super().__init__(d_model, eps)

    def reset_parameters(self) -> None:
        """Sets the weight to 0; also called by torch's constructor."""
        nn.init.zeros_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (..., D) to (..., D) in the dtype of x. In float32 or wider: 16 bits round 1 + weight too coarsely."""
        wide_x = wide(x)
        weight = 1 + self.weight.to(wide_x.dtype)
        return F.rms_norm(wide_x, self.normalized_shape, weight, self.eps).to(x.dtype)


def each_head(norm: Callable[[int], nn.Module]) -> Callable[[int, int], nn.Module]:
    """Returns the maker of a norm over each head by itself, for `Attention(qk_norm=...)`, from that of a norm."""

    def make(n_heads: int, head_dim: int) -> nn.Module:
        return norm(head_dim)

    return make


class AllHeadsRMSNorm(nn.Module):
    """RMS norm over all heads together (OLMo 2), for `Attention(qk_norm=...)`. H heads, K head width."""

    def __init__(self, n_heads: int, head_dim: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.norm = RMSNorm(n_heads * head_dim, eps)

    def forward(self, x_BTHK: Tensor) -> Tensor:
        """Maps (B, T, H, K) to (B, T, H, K)."""
        return self.norm(x_BTHK.flatten(-2)).view_as(x_BTHK)


def qk_norm(kind: str, eps: float) -> Callable[[int, int], nn.Module] | None:
    """Returns the RMS norm for `Attention(qk_norm=...)`: over each "head", over "all" heads together, or "none"."""
    if kind == "none":
        return None
    return partial(AllHeadsRMSNorm, eps=eps) if kind == "all" else each_head(partial(RMSNorm, eps=eps))


def l2_normalize(x: Tensor, eps: float = 1e-6) -> Tensor:
    """Returns x / sqrt(|x|² + eps) over the last dimension, in float32 or wider."""
    x = wide(x)
    return x * torch.rsqrt(x.square().sum(dim=-1, keepdim=True) + eps)
