"""Fixtures shared by the tests of storage."""

from __future__ import annotations

import pytest
import torch

import lmzoo
from lmzoo.model import LanguageModel

SMALL = {"vocab_size": 11, "d_model": 16, "n_layers": 2, "n_heads": 2, "context_length": 8}


@pytest.fixture
def model() -> LanguageModel:
    torch.manual_seed(1)
    return lmzoo.create_model("gpt2", **SMALL)
