"""A copy of a model for decoding alone: the same network with its weights in a form that this processor reads faster.

Decoding one token reads every weight once, so its time is the weights' bytes over the memory's bandwidth. Two forms:

- `bfloat16`: half the bytes of float32, laid out in blocks as oneDNN wants them. Helps at any number of rows; most from
  two rows on, where torch's own product with a bfloat16 weight stays far from the bandwidth.
- `int8`: a quarter of the bytes, one scale for each output. Weights alone are rounded, activations stay bfloat16. Helps
  a single row; torch's kernel takes time for every row: at sixteen, bfloat16 is faster.

Both are for a CPU; the figures are in docs/log.md. Legend: B rows of any shape, D inputs, N outputs of a linear map.
"""

from __future__ import annotations

import copy
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

from lmzoo.errors import InputError
from lmzoo.layers.linear import TiedHead
from lmzoo.model import LanguageModel

Weights = Literal["bfloat16", "int8"]
FORMS: tuple[Weights, ...] = ("bfloat16", "int8")
Model = TypeVar("Model", bound=LanguageModel)
_INT8_STRIDE = 32  # a length of rows that suits the int8 kernel of torch: it crashes on rows of 4, 8 or 24


class PackedLinear(nn.Module):
    """A linear map with a bfloat16 weight in oneDNN's blocked layout; it cannot be trained or saved."""

    def __init__(self, weight_ND: Tensor, bias_N: Tensor | None) -> None:
        super().__init__()
        self.blocks = torch.ops.mkldnn._reorder_linear_weight(weight_ND.detach().to(torch.bfloat16).contiguous(), 1)
        self.bias = _moved(bias_N)
        self.weight_bytes = 2 * weight_ND.numel()

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, self.blocks, self.bias, "none", [], "")


class Int8Linear(nn.Module):
    """A linear map whose weight is int8 times a scale for each output: the nearest of 255 levels up to its largest."""

    def __init__(self, weight_ND: Tensor, bias_N: Tensor | None) -> None:
        super().__init__()
        self.levels_ND, self.scale_N = quantize(weight_ND.detach())
        self.bias = _moved(bias_N)
        self.weight_bytes = self.levels_ND.numel() + 2 * self.scale_N.numel()

    def forward(self, x: Tensor) -> Tensor:
        y_BN = torch._weight_int8pack_mm(x.reshape(-1, x.shape[-1]), self.levels_ND, self.scale_N)
        if self.bias is not None:
            y_BN += self.bias
        return y_BN.view(*x.shape[:-1], -1)


def quantize(weight_ND: Tensor) -> tuple[Tensor, Tensor]:
    """Levels (N, D) int8 in [-127, 127] and scales (N,) bfloat16; levels times scale is nearest to the weight.

    The scale is rounded to bfloat16 first, upwards, so that the levels are the best for the scale that is used.
    """
    largest_N = weight_ND.float().abs().amax(dim=1).clamp(min=1e-30) / 127
    scale_N = (largest_N * (1 + 2.0**-8)).to(torch.bfloat16)
    levels_ND = (weight_ND.float() / scale_N.float()[:, None]).round().clamp(-127, 127).to(torch.int8)
    return levels_ND, scale_N


def decoding_copy(model: Model, weights: Weights) -> Model:
    """A copy of `model` in evaluation mode whose linear maps hold `weights`; all else is bfloat16.

    It decodes, generates and scores as any model; it cannot be trained or saved. `model` stays as it is. Raises
    `InputError` for another form, and where torch has no such kernels (not on a CPU, or a CPU without bfloat16).
    """
    if weights not in FORMS:
        raise InputError(f"weights={weights!r} must be one of {', '.join(FORMS)}")
    supported = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    if model.device.type != "cpu" or not supported:
        raise InputError(f"weights={weights!r} needs a CPU with bfloat16 kernels; the model is on {model.device}")
    form = PackedLinear if weights == "bfloat16" else Int8Linear
    with torch.no_grad():
        changed = copy.deepcopy(model).eval().to(torch.bfloat16)
        originals = dict(model.named_modules())
        for path, module in list(changed.named_modules()):
            parent, name = changed.get_submodule(path.rpartition(".")[0]), path.rpartition(".")[2]
            original = originals[path]
            if isinstance(original, (nn.Linear, TiedHead)):  # from the weights before they were rounded to bfloat16
                whole = original.weight.shape[1] % _INT8_STRIDE == 0
                setattr(
                    parent, name, (form if whole else PackedLinear)(original.weight, getattr(original, "bias", None))
                )
            elif isinstance(module, nn.Dropout):
                setattr(parent, name, nn.Identity())  # a call less at every step
    return changed.requires_grad_(False)


def weight_bytes_per_token(model: LanguageModel) -> int:
    """Bytes of weights that decoding one token of one row must read: all parameters, but one row of each table."""
    total, seen = 0, set()
    for module in model.modules():
        total += getattr(module, "weight_bytes", 0)
        for parameter in module.parameters(recurse=False):
            if id(parameter) not in seen and not isinstance(module, nn.Embedding):
                seen.add(id(parameter))
                total += parameter.numel() * parameter.element_size()
        if isinstance(module, nn.Embedding):
            total += module.embedding_dim * module.weight.element_size()
        if isinstance(module, TiedHead):
            total += module.weight.numel() * module.weight.element_size()
    return total


def _moved(bias_N: Tensor | None) -> Tensor | None:
    return None if bias_N is None else bias_N.detach().to(torch.bfloat16)
