"""A copy of a model for decoding alone: the same network with its weights in a form that this processor reads faster.

Decoding one token reads every weight once, so its time is at least the weights' bytes over the memory's bandwidth:

- `bfloat16`: half the bytes of float32.
- `int8`: a quarter of the bytes, one scale for each output. Weights alone are rounded, activations stay bfloat16.

A copy may be compiled (`lmzoo.inference.compiled`), which takes most of the time off that is not reading. How the bytes
lie follows from that and from the rows decoded together: one compiled row sums up products itself, everything else asks
oneDNN, which wants blocks. All for a CPU; the figures are in docs/log.md.
Legend: B rows of any shape, D inputs, N outputs of a linear map.
"""

from __future__ import annotations

import copy
from typing import Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lmzoo.errors import InputError
from lmzoo.inference.compiled import CompiledStep
from lmzoo.layers.head import TiedHead
from lmzoo.model import LanguageModel

Weights = Literal["bfloat16", "int8"]
FORMS: tuple[Weights, ...] = ("bfloat16", "int8")
Model = TypeVar("Model", bound=LanguageModel)
_INT8_STRIDE = 32  # a length of rows that suits the int8 kernel of torch: it crashes on rows of 4, 8 or 24


def sum_of_products(weight_ND: Tensor, x: Tensor) -> Tensor:
    """The product of a matrix with one row of D numbers, (N,) float32, written so that a compiler makes one loop of it,
    which reads the weight once, as fast as the memory gives it. Eager it would hold N times D numbers.
    """
    return (weight_ND.float() * x.flatten().float()).sum(dim=-1)


def _sums_by_itself(x: Tensor) -> bool:
    return torch.compiler.is_compiling() and x.shape[:-1].numel() == 1


class PlainLinear(nn.Module):
    """A linear map with a bfloat16 weight as it is, for one compiled row; it cannot be trained or saved."""

    def __init__(self, weight_ND: Tensor, bias_N: Tensor | None) -> None:
        super().__init__()
        self.weight_ND: Tensor  # a buffer, so that a compiler which may lay out constants anew knows it for one
        self.register_buffer("weight_ND", weight_ND.detach().to(torch.bfloat16).contiguous(), persistent=False)
        self.register_buffer("bias", _moved(bias_N), persistent=False)
        self.weight_bytes = 2 * weight_ND.numel()

    def forward(self, x: Tensor) -> Tensor:
        if not _sums_by_itself(x):
            return F.linear(x, self.weight_ND, self.bias)
        return _finished(sum_of_products(self.weight_ND, x), self.bias, x)


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
        if _sums_by_itself(x):
            return _finished(sum_of_products(self.levels_ND, x) * self.scale_N, self.bias, x)
        y_BN = torch._weight_int8pack_mm(x.reshape(-1, x.shape[-1]), self.levels_ND, self.scale_N)
        if self.bias is not None:
            y_BN += self.bias
        return y_BN.view(*x.shape[:-1], -1)


def _finished(y_N: Tensor, bias_N: Tensor | None, x: Tensor) -> Tensor:
    """The sums with the bias, in the type and the shape that a linear map gives for x."""
    y_N = y_N if bias_N is None else y_N + bias_N
    return y_N.to(x.dtype).view(*x.shape[:-1], -1)


def quantize(weight_ND: Tensor) -> tuple[Tensor, Tensor]:
    """Levels (N, D) int8 in [-127, 127] and scales (N,) bfloat16; levels times scale is nearest to the weight.

    The scale is rounded to bfloat16 first, upwards, so that the levels are the best for the scale that is used.
    """
    largest_N = weight_ND.float().abs().amax(dim=1).clamp(min=1e-30) / 127
    scale_N = (largest_N * (1 + 2.0**-8)).to(torch.bfloat16)
    levels_ND = (weight_ND.float() / scale_N.float()[:, None]).round().clamp(-127, 127).to(torch.int8)
    return levels_ND, scale_N


def decoding_copy(model: Model, weights: Weights, *, rows: int = 1, compiled: bool = False) -> Model:
    """A copy of `model` in evaluation mode whose linear maps hold `weights`; all else is bfloat16.

    It decodes, generates and scores as any model; it cannot be trained or saved. `model` stays as it is. `rows` is how
    many sequences will be decoded together: the layout suits that number best, and any other gives the same. With
    `compiled`, the first step takes some 10 to 60 seconds, once for each number of rows, and needs a C++ compiler.
    Raises `InputError` for another form, and where torch has no such kernels (not on a CPU, or a CPU without bfloat16).
    """
    if weights not in FORMS:
        raise InputError(f"weights={weights!r} must be one of {', '.join(FORMS)}")
    supported = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    if model.device.type != "cpu" or not supported:
        raise InputError(f"weights={weights!r} needs a CPU with bfloat16 kernels; the model is on {model.device}")
    bfloat16 = PlainLinear if compiled else PackedLinear
    form = bfloat16 if weights == "bfloat16" else Int8Linear
    with torch.no_grad():
        changed = copy.deepcopy(model).eval().to(torch.bfloat16)
        originals = dict(model.named_modules())
        for path, module in list(changed.named_modules()):
            parent, name = changed.get_submodule(path.rpartition(".")[0]), path.rpartition(".")[2]
            original = originals[path]
            if isinstance(original, (nn.Linear, TiedHead)):  # from the weights before they were rounded to bfloat16
                whole = original.weight.shape[1] % _INT8_STRIDE == 0
                setattr(parent, name, (form if whole else bfloat16)(original.weight, getattr(original, "bias", None)))
            elif isinstance(module, nn.Dropout):
                setattr(parent, name, nn.Identity())  # a call less at every step
    changed.compiled_step = CompiledStep(changed) if compiled else None
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
