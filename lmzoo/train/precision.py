"""float32 or bf16 autocast: what `precision = "auto"` means on a machine, by a rule that does not depend on a clock."""

from __future__ import annotations

import torch

from lmzoo.errors import ConfigError
from lmzoo.model import LanguageModel

# FLOPs of the product of the mean matrix with the tokens of a forward pass. Measured on two cores with AVX512-BF16
# (docs/log.md): bf16 takes 1.12 times the time of float32 at 6e6, 0.9 times at 2e7, 0.8 times at 7e7, 0.63 times at 2e8
# (gpt2, llama); an lstm gains from 2e8 on, mamba takes as long either way. On two cores with AMX, with torch's
# attention of then, bf16 was slower up to 1e8; with ours it was not measured there.
WORTHWHILE_FLOPS = 5e7


def resolve_precision(precision: str, model: LanguageModel, batch_size: int) -> str:
    """Returns "float32" or "bf16" for a setting that may be "auto".

    "auto" is bf16 on a GPU that has it, and on a processor with instructions for its products (AMX, AVX512-BF16) when
    the model's matrices and batches are large enough to gain from it. Raises `ConfigError` for "bf16" on a GPU without
    it.
    """
    if model.device.type == "cuda":
        has_bf16 = torch.cuda.is_bf16_supported()
        if precision == "bf16" and not has_bf16:
            raise ConfigError("precision='bf16' needs a GPU that has it: use float32")
        return ("bf16" if has_bf16 else "float32") if precision == "auto" else precision
    if precision != "auto":
        return precision
    tokens = batch_size * model.config.context_length
    return "bf16" if _multiplies_bf16() and 2.0 * tokens * _mean_matrix(model) >= WORTHWHILE_FLOPS else "float32"


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The context of a forward pass: matrix products in bf16, or everything as it is."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def _mean_matrix(model: LanguageModel) -> float:
    """Elements of the mean weight matrix, 0 for a model without any."""
    groups = model.parameter_groups(0.0)
    sizes = [p.numel() for group in groups if group["role"] in ("matrix", "head") for p in group["params"]]
    return sum(sizes) / max(1, len(sizes))


def _multiplies_bf16() -> bool:
    """Whether the processor multiplies bf16 in hardware; torch has no public question for it yet."""
    questions = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(getattr(torch.cpu, question, bool)() for question in questions)
