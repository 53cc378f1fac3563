"""Chooses float32 or bf16 autocast for `precision = "auto"`, from sizes and CPU features, not from a timing."""

from __future__ import annotations

import torch

from lmzoo.errors import ConfigError
from lmzoo.hardware import multiplies_bf16
from lmzoo.model import LanguageModel

# Smallest size at which bf16 is faster on a CPU: FLOPs of the product of a matrix of mean size with the tokens of one
# forward pass (measurements: docs/log.md).
WORTHWHILE_FLOPS = 5e7


def resolve_precision(precision: str, model: LanguageModel, batch_size: int) -> str:
    """Return "float32" or "bf16" for a setting that may be "auto".

    "auto" is bf16 on a GPU that supports it, and on a CPU with bf16 instructions (AMX, AVX512-BF16) if the model's
    matrices and batches are large enough to be faster. Raises `ConfigError` for "bf16" on a GPU that does not support
    it.
    """
    has_bf16 = multiplies_bf16(model.device)
    if model.device.type == "cuda":
        if precision == "bf16" and not has_bf16:
            raise ConfigError("precision='bf16' needs a GPU that has it: use float32")
        return ("bf16" if has_bf16 else "float32") if precision == "auto" else precision
    if precision != "auto":
        return precision
    tokens = batch_size * model.config.context_length
    return "bf16" if has_bf16 and 2.0 * tokens * _mean_matrix(model) >= WORTHWHILE_FLOPS else "float32"


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Return the autocast context of a forward pass: matrix products in bf16, or no change for float32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def _mean_matrix(model: LanguageModel) -> float:
    """Return the mean number of elements of the weight matrices, 0 for a model without any."""
    groups = model.parameter_groups(0.0)
    sizes = [p.numel() for group in groups if group["role"] in ("matrix", "head") for p in group["params"]]
    return sum(sizes) / max(1, len(sizes))
