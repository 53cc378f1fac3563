"""The small models whose mixers the tests replace."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import lmzoo
from tests.helpers import seeded

SIZES: dict[str, Any] = {"vocab_size": 13, "d_model": 32, "n_layers": 4, "context_length": 24}


def trained(family: str = "llama", **settings: Any) -> lmzoo.LanguageModel:
    """A model whose weights are all far from their initial values, in eval mode."""
    model = lmzoo.create_model(family, generator=seeded(), **{**SIZES, **settings})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=seeded(1)))
    return model.eval()


def tokens(T: int = 20) -> Tensor:
    return torch.randint(13, (2, T), generator=seeded(2))
