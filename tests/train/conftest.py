"""A small text with something to learn in it, and specs of short runs on it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lmzoo import saving
from lmzoo.train.run import RunSpec, make_spec

TEXT = "".join(f"The {i} cats sat on {i * 7 % 13} mats, and {i * i % 29} of them purred.\n" for i in range(400))
SMALL = {"d_model": 16, "n_layers": 1, "n_heads": 2, "context_length": 16}


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of about 20,000 characters."""
    path = tmp_path_factory.mktemp("text") / "cats.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


@pytest.fixture
def small_spec(text: Path) -> Callable[..., RunSpec]:
    """A spec of a small gpt2, or of another model, with given settings."""

    def make(model: str = "gpt2", **settings: Any) -> RunSpec:
        shape = SMALL if model == "gpt2" else {"context_length": 16}
        recipe = {"steps": 12, "batch_size": 4, "eval_every": 4, "log_every": 1, "warmup_steps": 2}
        return make_spec(model, str(text), overrides={**shape, **recipe, **settings})

    return make


def tensors(run: Path, step: int) -> dict[str, torch.Tensor]:
    """Everything a checkpoint holds, the optimizer's and the random states included."""
    folder = saving.checkpoint_path(run, step)
    found: dict[str, torch.Tensor] = {}
    for name in ("model.safetensors", "optimizer.safetensors"):
        with saving.open_tensors(folder / name) as file:
            found |= {f"{name}:{key}": file.tensor(key) for key in file.shapes}
    return found


def assert_same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    """Equal to the bit, in the same names."""
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
