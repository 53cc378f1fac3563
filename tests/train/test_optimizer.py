"""Tests the optimizer: weight decay by role, and its state by parameter name."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.optim import Optimizer

from lmzoo.model import LanguageModel
from lmzoo.train.config import TrainConfig
from lmzoo.train.optimizer import make_optimizer, optimizer_tensors, restore_optimizer


def test_make_optimizer_decays_only_matrices_and_embeddings(model: LanguageModel) -> None:
    optimizer = make_optimizer(model, TrainConfig(weight_decay=0.25))
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert {name: decay[id(p)] for name, p in model.named_parameters()} == {
        name: 0.25 if p.ndim > 1 else 0.0 for name, p in model.named_parameters()
    }


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_restore_optimizer_continues_bitwise(model: LanguageModel, name: str) -> None:
    config = TrainConfig(optimizer=name)
    other = copy.deepcopy(model)
    optimizer, restored = make_optimizer(model, config), make_optimizer(other, config)

    def step(model: LanguageModel, optimizer: Optimizer) -> None:
        idx_BT = torch.arange(16)[None] % 40
        model.eval()(idx_BT, idx_BT).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    step(model, optimizer)
    saved = optimizer_tensors(model, optimizer)
    assert {key.rpartition("/")[0] for key in saved} == {name for name, _ in model.named_parameters()}
    restore_optimizer(other, restored, saved)
    other.load_state_dict(model.state_dict())
    step(model, optimizer)
    step(other, restored)
    for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(ours, theirs)
