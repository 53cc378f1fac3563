"""Fixtures for the tests of training: a small model with dropout, and a run whose best checkpoint is lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import lmzoo
from lmzoo.model import LanguageModel
from lmzoo.runs.run import RunSpec, train_run
from lmzoo.storage import atomic, checkpoints
from tests.helpers import RISING, saved_steps


@pytest.fixture
def model() -> LanguageModel:
    torch.manual_seed(3)
    vocab = 40
    shape = {"d_model": 16, "n_layers": 1, "n_heads": 2, "context_length": 16}
    return lmzoo.create_model("gpt2", vocab_size=vocab, dropout=0.5, **shape)


@pytest.fixture
def without_best(tmp_path: Path, small_spec: Callable[..., RunSpec]) -> Path:
    """A run with the checkpoints 6, 8, 10 and 12; the best one, of step 4, has been removed."""
    train_run(small_spec("bigram", **RISING, keep_checkpoints=5), tmp_path / "run")
    assert saved_steps(tmp_path / "run") == [12, 10, 8, 6, 4]
    atomic.remove_folder(checkpoints.path_of(tmp_path / "run", 4))
    return tmp_path / "run"
