"""Tests activation checkpointing: bitwise equal for every family, less memory, switched off afterwards."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lmzoo import registry
from lmzoo.conformance.tiny import subject
from lmzoo.layers.stack import blocks_of
from lmzoo.model import LanguageModel
from lmzoo.runs.run import RunSpec, train_run
from lmzoo.train.activation_checkpointing import activation_checkpointing
from tests.helpers import assert_same, tensors

FAMILIES = sorted(registry.families())


def one_step(model: LanguageModel, idx: Tensor, targets: Tensor, *, enabled: bool) -> tuple[list[Tensor], int]:
    """Return loss, gradients, and the bytes kept for the backward pass (without weights)."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}  # held, so that no address is used twice

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage
        return tensor

    torch.manual_seed(5)
    with activation_checkpointing(model, enabled):
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            loss = model(idx, targets).loss
        gradients = torch.autograd.grad(loss, list(model.parameters()))
    return [loss.detach(), *gradients], sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("family", FAMILIES)
def test_activation_checkpointing_is_bitwise_equal_and_saves_memory(family: str) -> None:
    case = subject(family)
    model = case.model(dropout=0.3).train()
    idx, targets = case.tokens(4, case.context), case.tokens(4, case.context, seed=1)
    if not model.traits.trainable:
        assert not model(idx, targets).loss.requires_grad, "there is no backward pass to save memory for"
        return
    plain, all_of_it = one_step(model, idx, targets, enabled=False)
    ours, inputs_alone = one_step(model, idx, targets, enabled=True)
    assert all(torch.equal(a, b) for a, b in zip(ours, plain, strict=True))
    if blocks_of(model):
        assert inputs_alone < 0.6 * all_of_it  # a block of rnn keeps little more than its input
    else:
        assert inputs_alone == all_of_it
    _, after = one_step(model, idx, targets, enabled=False)
    assert after == all_of_it, "checkpointing is off again"
    assert not any(getattr(module, "checkpoints", False) for module in model.modules())


def test_outermost_stacks_exist_in_families_with_depth() -> None:
    counts = {family: len(blocks_of(subject(family).model())) for family in FAMILIES}
    assert counts["gpt2"] == counts["llama"] == counts["mamba"] == counts["lstm"] == 2
    assert counts["bigram"] == counts["mlp"] == 0


def test_train_run_with_gradient_checkpointing_is_bitwise_equal(
    tmp_path: Path, small_spec: Callable[..., RunSpec]
) -> None:
    for name, on in (("plain", False), ("recomputed", True)):
        train_run(small_spec(dropout=0.2, gradient_checkpointing=on), tmp_path / name)
    assert_same(tensors(tmp_path / "plain", 12), tensors(tmp_path / "recomputed", 12))
