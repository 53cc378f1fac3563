"""Copies of models for decoding, with weights in smaller formats that a CPU reads faster.

Decoding one token reads every weight once, so it takes at least the weights' bytes over the memory's bandwidth:

- `bfloat16`: half the bytes of float32.
- `int8`: a quarter of the bytes, one scale per output. Only weights are quantized, activations stay bfloat16.

A copy may be compiled (`lmzoo.inference.compiled`), which removes most of the overhead beside reading weights. The
memory layout depends on this and on the number of rows: compiled decoding of one row uses row-major weights, everything
else calls oneDNN with its blocked layout. The figures are in docs/log.md.
Legend: B rows of any shape, D inputs, N outputs of a linear map.
"""

from __future__ import annotations

import copy
from typing import Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lmzoo import arguments
from lmzoo.errors import InputError
from lmzoo.inference.compiled import CompiledStep
from lmzoo.losses import linear_map
from lmzoo.model import LanguageModel, require_model

Weights = Literal["bfloat16", "int8"]
FORMS: tuple[Weights, ...] = ("bfloat16", "int8")
Model = TypeVar("Model", bound=LanguageModel)
_INT8_STRIDE = 32  # torch's int8 kernel needs row lengths that are multiples of this: it crashes on 4, 8 or 24


def sum_of_products(weight_ND: Tensor, x: Tensor) -> Tensor:
    """The product of a matrix with one row of D numbers, (N,) float32.

    Compiled, it is one loop that reads the weight once at memory bandwidth. Eager, it stores N times D numbers.
    """
    return (weight_ND.float() * x.flatten().float()).sum(dim=-1)


def _sums_by_itself(x: Tensor) -> bool:
    return torch.compiler.is_compiling() and x.shape[:-1].numel() == 1


class _CopiedLinear(nn.Module):
    """A linear map that replaces an `nn.Linear` in a copy; layers may read its sizes and its weight."""

    def __init__(self, weight_ND: Tensor) -> None:
        super().__init__()
        self.out_features, self.in_features = weight_ND.shape


class PlainLinear(_CopiedLinear):
    """A linear map with a row-major bfloat16 weight, for one compiled row, and for a CPU without bfloat16 kernels.

    It cannot be trained or saved.
    """

    def __init__(self, weight_ND: Tensor, bias_N: Tensor | None) -> None:
        super().__init__(weight_ND)
        self.weight: Tensor  # a buffer, so that a compiler may change its layout as for a constant
        self.register_buffer("weight", weight_ND.detach().to(torch.bfloat16).contiguous(), persistent=False)
        self.register_buffer("bias", _rounded(bias_N), persistent=False)
        self.weight_bytes = 2 * weight_ND.numel()

    def forward(self, x: Tensor) -> Tensor:
        if not _sums_by_itself(x):
            return F.linear(x, self.weight, self.bias)
        return _finished(sum_of_products(self.weight, x), self.bias, x)


class PackedLinear(_CopiedLinear):
    """A linear map with a bfloat16 weight in oneDNN's blocked layout; it cannot be trained or saved."""

    def __init__(self, weight_ND: Tensor, bias_N: Tensor | None) -> None:
        super().__init__(weight_ND)
        self.blocks = torch.ops.mkldnn._reorder_linear_weight(weight_ND.detach().to(torch.bfloat16).contiguous(), 1)
        self.bias = _rounded(bias_N)
        self.weight_bytes = 2 * weight_ND.numel()

    @property
    def weight(self) -> Tensor:
        """The weight (N, D) in bfloat16, copied out of the blocked layout."""
        return self.blocks.to_dense()

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, self.blocks, self.bias, "none", [], "")


class Int8Linear(_CopiedLinear):
    """A linear map with an int8 weight and one scale per output (absolute-maximum quantization to 255 levels)."""

    def __init__(self, weight_ND: Tensor, bias_N: Tensor | None) -> None:
        super().__init__(weight_ND)
        self.levels_ND, self.scale_N = quantize(weight_ND.detach())
        self.bias = _rounded(bias_N)
        self.weight_bytes = self.levels_ND.numel() + 2 * self.scale_N.numel()

    @property
    def weight(self) -> Tensor:
        """The dequantized weight (N, D) in bfloat16."""
        return self.levels_ND * self.scale_N[:, None]

    def forward(self, x: Tensor) -> Tensor:
        if _sums_by_itself(x):
            return _finished(sum_of_products(self.levels_ND, x) * self.scale_N, self.bias, x)
        x_BD = x.reshape(-1, x.shape[-1]).contiguous()  # torch's kernel reads past the end of a strided input
        y_BN = torch._weight_int8pack_mm(x_BD, self.levels_ND, self.scale_N)
        if self.bias is not None:
            y_BN += self.bias
        return y_BN.view(*x.shape[:-1], len(self.scale_N))


def _finished(y_N: Tensor, bias_N: Tensor | None, x: Tensor) -> Tensor:
    """Add the bias and convert the sums to the dtype and shape of the output for x."""
    y_N = y_N if bias_N is None else y_N + bias_N
    return y_N.to(x.dtype).view(*x.shape[:-1], -1)


def quantize(weight_ND: Tensor) -> tuple[Tensor, Tensor]:
    """Quantize to levels (N, D) int8 in [-127, 127] and scales (N,) bfloat16; weight is about levels times scale.

    The scale is rounded to bfloat16 first, upwards, so that the levels are the best for the scale that is used.
    """
    largest_N = weight_ND.float().abs().amax(dim=1).clamp(min=1e-30) / 127
    scale_N = (largest_N * (1 + 2.0**-8)).to(torch.bfloat16)
    levels_ND = (weight_ND.float() / scale_N.float()[:, None]).round().clamp(-127, 127).to(torch.int8)
    return levels_ND, scale_N


def cast_weights(model: Model, dtype: torch.dtype) -> Model:
    """Casts all floating-point weights of `model` to `dtype` in place, except those that must stay float32.

    A layer names these in `keep_float32`: decay rates close to one, for example, are lost in 16 bits.
    """
    for module in model.modules():
        kept = getattr(module, "keep_float32", ())
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is not None and tensor.is_floating_point():
                    wide = torch.promote_types(dtype, torch.float32)
                    tensor.data = tensor.data.to(wide if name in kept else dtype)
    return model


def has_bfloat16_kernels() -> bool:
    """True if this CPU has the bfloat16 kernels that make copies for decoding fast."""
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def decoding_copy(
    model: Model,
    weights: Weights,
    *,
    rows: int = 1,  # today one layout serves every number
    compiled: bool = False,
) -> Model:
    """Returns a copy of `model` in evaluation mode whose linear maps have weights in the format `weights`.

    All other weights are bfloat16, except those that must stay float32 (`cast_weights`). The copy decodes, generates
    and scores as any model; it cannot be trained or saved. `model` does not change. `rows` is the
    number of sequences decoded together; the results do not depend on it.
    With `compiled`, the first step takes about 10 to 60 seconds, once per number of rows, and needs a C++ compiler. A
    model without parameters has no weights to read and is never compiled: its look-ups in a table take minutes to.
    On a CPU without bfloat16 kernels (`has_bfloat16_kernels`) a copy takes less memory, but decodes slower.
    Raises `InputError` for an unknown format, and for a model on another device.
    """
    require_model("model", model)
    arguments.count("rows", rows, least=1)
    if not isinstance(weights, str) or weights not in FORMS:
        raise InputError(f"weights={weights!r} must be one of {', '.join(FORMS)}")
    if model.device.type != "cpu":
        raise InputError(f"weights={weights!r} needs a model on the CPU; this one is on {model.device}")
    bfloat16 = PlainLinear if compiled or not has_bfloat16_kernels() else PackedLinear
    form = bfloat16 if weights == "bfloat16" else Int8Linear
    with torch.no_grad():
        changed = cast_weights(copy.deepcopy(model).eval(), torch.bfloat16)
        for path, original in list(model.named_modules()):
            parent, _, name = path.rpartition(".")
            linear = linear_map(original)
            if linear is not None:  # from the weights before they were rounded to bfloat16
                whole = linear[0].shape[1] % _INT8_STRIDE == 0
                setattr(changed.get_submodule(parent), name, (form if whole else bfloat16)(*linear))
            elif isinstance(original, nn.Dropout):
                setattr(changed.get_submodule(parent), name, nn.Identity())  # saves one call per step
    changed.compiled_step = CompiledStep(changed) if compiled and model.num_params() else None
    return changed.requires_grad_(False)


def int8_share(model: LanguageModel) -> float:
    """Returns the share of a copy's weights that are int8, embedding tables not counted.

    A copy with `weights="int8"` keeps in bfloat16 what is no linear map (the recurrent weights of an LSTM, experts),
    and maps whose width is no multiple of 32.
    """
    quantized = sum(m.levels_ND.numel() for m in model.modules() if isinstance(m, Int8Linear))
    copied = sum(m.weight_bytes // 2 for m in model.modules() if isinstance(m, (PlainLinear, PackedLinear)))
    tables = [module.weight for module in model.modules() if isinstance(module, nn.Embedding)]
    others = sum(p.numel() for p in model.parameters() if not any(p is table for table in tables))
    return quantized / max(1, quantized + copied + others)


def weight_bytes_per_token(model: LanguageModel) -> int:
    """Bytes of weights read to decode one token: all parameters, but only one row of each embedding table."""
    total, seen = 0, set()
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            total += module.embedding_dim * module.weight.element_size()
        elif isinstance(module, (PlainLinear, PackedLinear, Int8Linear)):
            total += module.weight_bytes
        else:
            weight = getattr(module, "weight", None)  # a tied head reads a parameter of the embedding
            for parameter in (weight, *module.parameters(recurse=False)):
                if isinstance(parameter, nn.Parameter) and id(parameter) not in seen:
                    seen.add(id(parameter))
                    total += parameter.nbytes
    return total


def _rounded(bias_N: Tensor | None) -> Tensor | None:
    return None if bias_N is None else bias_N.detach().to(torch.bfloat16)
