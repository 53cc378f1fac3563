"""Tests the choice of float32 or bf16, and training in bf16."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import lmzoo
from lmzoo.hardware import multiplies_bf16
from lmzoo.model import LanguageModel
from lmzoo.runs.run import RunSpec, train_run
from lmzoo.train import precision


def test_resolve_precision_auto_follows_sizes_and_cpu_features(model: LanguageModel) -> None:
    wide = lmzoo.create_model("gpt2", vocab_size=65, d_model=256, n_layers=1, context_length=64)
    assert precision.resolve_precision("auto", model, 16) == "float32"
    assert precision.resolve_precision("auto", wide, 1) == "float32"
    assert precision.resolve_precision("auto", wide, 16) == ("bf16" if multiplies_bf16(wide.device) else "float32")
    assert precision.resolve_precision("bf16", model, 1) == "bf16"
    assert precision.resolve_precision("auto", lmzoo.create_model("bigram", vocab_size=9), 999) == "float32"


def test_autocast_bf16_leaves_the_weights_float32(tmp_path: Path, small_spec: Callable[..., RunSpec]) -> None:
    whole = train_run(small_spec(), tmp_path / "float32").loss
    half = train_run(small_spec(precision="bf16"), tmp_path / "bf16").loss
    assert half != whole
    assert half == pytest.approx(whole, abs=0.02)
    assert lmzoo.load_model(tmp_path / "bf16").dtype == torch.float32
