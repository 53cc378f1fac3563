"""Fixtures shared by the tests of storage."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import lmzoo
from lmzoo.model import LanguageModel
from lmzoo.storage import atomic

SMALL = {"vocab_size": 11, "d_model": 16, "n_layers": 2, "n_heads": 2, "context_length": 8}


@pytest.fixture
def model() -> LanguageModel:
    torch.manual_seed(1)
    return lmzoo.create_model("gpt2", **SMALL)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A folder with one file and a manifest."""
    with atomic.new_folder(tmp_path / "saved") as new:
        (new / "a.txt").write_text("some text")
    return tmp_path / "saved"
