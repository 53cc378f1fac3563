"""Helpers that tests of several packages share."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType
from typing import TypeVar

import pytest
import torch
from torch import nn

from lmzoo import registry
from lmzoo.storage import checkpoints, safetensors

TEXT = "".join(f"The {i} cats sat on {i * 7 % 13} mats, and {i * i % 29} of them purred.\n" for i in range(400))
# A bigram that learns too fast gets worse from step 4 on: that checkpoint is the best.
RISING = {"learning_rate": 1.0, "schedule": "constant", "warmup_steps": 0, "checkpoint_every": 2, "eval_every": 2}
SHORT_SAMPLE = 24  # tokens at the end of a run, more than the context of `SMALL`
SHORT_TIMING = 0.01  # seconds of the steps that a comparison times for the speed of a model
SMALL = {"d_model": 16, "n_layers": 1, "n_heads": 2, "context_length": 16}

Model = TypeVar("Model", bound=nn.Module)


def load_script(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Load a file of scripts/ that has no suffix as a module; it would else start anew in the environment .venv."""
    root = Path(__file__).parents[1]
    monkeypatch.setattr(sys, "prefix", str(root / ".venv"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    loader = SourceFileLoader(name, str(root / "scripts" / name))
    spec = spec_from_loader(name, loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module


@contextmanager
def registered_names_restored() -> Iterator[None]:
    """Unregister what the body registers, but not what it imports of lmzoo."""
    before = set(registry._classes)
    try:
        yield
    finally:
        for name in set(registry._classes) - before - registry._builtin_families():
            del registry._classes[name]


def seeded(seed: int = 0) -> torch.Generator:
    """Return a CPU generator with this seed."""
    return torch.Generator().manual_seed(seed)


def far_from_uniform(model: Model, std: float, seed: int) -> Model:
    """Draw large weights, so that the predictions of `model` depend on the past and are far from uniform.

    Only matrices are drawn: large random biases would hide the influence of the tokens.
    """
    generator = seeded(seed)
    for parameter in model.parameters():
        if parameter.ndim == 2:
            nn.init.normal_(parameter, std=std, generator=generator)
    return model


def tensors(run: Path, step: int) -> dict[str, torch.Tensor]:
    """Return all tensors of a checkpoint: weights, optimizer state and random states."""
    folder = checkpoints.path_of(run, step)
    found: dict[str, torch.Tensor] = {}
    for name in ("model.safetensors", "optimizer.safetensors"):
        with safetensors.open_tensors(folder / name) as file:
            found |= {f"{name}:{key}": file.tensor(key) for key in file.shapes}
    return found


def assert_same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    """Assert that both have the same names and bitwise equal tensors."""
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


def saved_steps(run: Path) -> list[int]:
    """Return the steps that have a checkpoint, newest first."""
    return [step for step, _ in checkpoints.saved(run)]


def damage(run: Path, step: int) -> None:
    """Flip a bit in the weights of the checkpoint of `step`."""
    file = checkpoints.path_of(run, step) / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
