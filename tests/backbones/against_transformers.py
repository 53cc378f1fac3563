"""Shared by the tests that hold a backbone against the model of that name in Hugging Face transformers."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # nothing is fetched: the references are built from small random configurations

import torch
from torch import Tensor, nn

TOLERANCE = 1e-4  # float32, on logits of order 1 to 10


def perturb(model: nn.Module, seed: int = 0) -> nn.Module:
    """Move every weight away from where it began: gains from one, biases from zero, so that none can hide a mistake."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            scale = 0.2 if parameter.ndim == 1 else 1.0 / parameter.shape[-1] ** 0.5
            parameter.add_(torch.randn(parameter.shape, generator=generator) * scale)
    return model.eval()


def random_tokens(vocab_size: int, batch_size: int, T: int, seed: int = 1) -> Tensor:
    """(batch_size, T) ids."""
    return torch.randint(vocab_size, (batch_size, T), generator=torch.Generator().manual_seed(seed))


def copy_into(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Load `weights` into `model`; every parameter of the model must be named, and nothing else."""
    model.load_state_dict(weights, strict=True)
