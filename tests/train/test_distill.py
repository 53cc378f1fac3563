"""Tests the objective of a run with a teacher against direct formulas."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import lmzoo
from lmzoo import losses
from lmzoo.errors import ConfigError
from lmzoo.layers.context import Context
from lmzoo.losses import IGNORE_INDEX
from lmzoo.train.distill import Distillation, DistillConfig, cross_entropy, divergence, features, relative_error
from tests.helpers import far_from_uniform, seeded

SIZES = {"vocab_size": 11, "d_model": 16, "n_layers": 2, "n_heads": 2, "context_length": 8}


def model(seed: int) -> lmzoo.LanguageModel:
    return far_from_uniform(lmzoo.create_model("llama", **SIZES), 0.3, seed).double()


def batch() -> tuple[Tensor, Tensor]:
    idx, targets = (torch.randint(11, (3, 8), generator=seeded(n)) for n in (1, 2))
    targets[0, 5:] = IGNORE_INDEX
    return idx, targets


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_divergence_equals_the_definition(temperature: float) -> None:
    mine, wanted = (torch.randn(2, 3, 5, generator=seeded(n), dtype=torch.float64) for n in (1, 2))
    targets = torch.tensor([[1, 2, IGNORE_INDEX], [0, IGNORE_INDEX, 4]])
    total, count = 0.0, 0
    for b in range(2):
        for t in range(3):
            if targets[b, t] == IGNORE_INDEX:
                continue
            p, q = ([math.exp(z / temperature) for z in logits[b, t].tolist()] for logits in (wanted, mine))
            p, q = [x / sum(p) for x in p], [x / sum(q) for x in q]
            total += sum(x * math.log(x / y) for x, y in zip(p, q, strict=True))
            count += 1
    found = divergence(mine, wanted, targets, temperature)
    assert found.item() == pytest.approx(temperature**2 * total / count, rel=1e-12)
    assert divergence(wanted, wanted, targets, temperature).item() == pytest.approx(0, abs=1e-15)
    assert divergence(mine, wanted, torch.full((2, 3), IGNORE_INDEX), temperature) == 0


def test_divergence_of_16_bits_is_computed_in_float32() -> None:
    mine, wanted = (torch.randn(1, 4, 50, generator=seeded(n)).bfloat16() for n in (1, 2))
    targets = torch.zeros(1, 4, dtype=torch.long)
    assert torch.equal(divergence(mine, wanted, targets, 1.0), divergence(mine.float(), wanted.float(), targets, 1.0))


def test_distillation_reports_the_cross_entropy_and_adds_the_gradient_of_the_divergence() -> None:
    student, teacher, (idx, targets) = model(1).train(), model(2).eval().requires_grad_(False), batch()
    objective = Distillation(student, teacher, DistillConfig(temperature=2.0, weight=0.7))
    with losses.reported() as named:
        loss = objective(student, idx, targets, 0)
    loss.backward()
    found = [p.grad.clone() for p in student.parameters()]
    student.zero_grad()
    logits, expected = student(idx, targets)
    value = 0.7 * divergence(logits, teacher(idx).logits, targets, 2.0)
    (expected + value).backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    assert named == {"distill": pytest.approx(value.item(), rel=1e-12)}
    for ours, theirs in zip(found, student.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs.grad)
    assert all(p.grad is None for p in teacher.parameters())


def test_distillation_matches_features_first_and_trains_nothing_else() -> None:
    student, teacher, (idx, targets) = model(1).train(), model(2).eval(), batch()
    objective = Distillation(student, teacher, DistillConfig(match_steps=3))
    with losses.reported() as named:
        loss = objective(student, idx, targets, 2)
    loss.backward()
    assert student.head.weight.grad is None
    assert student.norm.weight.grad is None
    expected = []
    mine, theirs = student.tokens(idx), teacher.tokens(idx)
    for ours, block in zip(student.blocks, teacher.blocks, strict=True):
        ctx = Context(0, 8, idx.device, torch.float64)
        mine, theirs = ours(mine, None, ctx)[0], block(theirs, None, ctx)[0]
        expected.append((((mine - theirs) ** 2).mean() / (theirs**2).mean()).item())
    assert named == {"match": pytest.approx(sum(expected) / 2, rel=1e-12)}
    assert loss.item() == pytest.approx(student(idx, targets).loss.item(), rel=1e-12)
    with losses.reported() as named:
        objective(student, idx, targets, 3)
    assert named.keys() == {"distill"}
    assert not [block for block in (*student.blocks, *teacher.blocks) if block._forward_hooks]


def test_features_are_the_outputs_of_the_blocks() -> None:
    found = model(1)
    idx, _ = batch()
    with features(found) as outputs:
        x_BTD, _ = found.features(idx)
    assert [x.shape for x in outputs] == [(3, 8, 16)] * 2
    assert torch.equal(found.norm(outputs[-1]), x_BTD)


def test_relative_error_is_the_share_of_the_mean_square() -> None:
    wanted = torch.tensor([3.0, 4.0])
    assert relative_error(torch.tensor([3.0, 5.0]), wanted).item() == pytest.approx(1 / 25)
    assert relative_error(wanted, wanted) == 0


def test_cross_entropy_is_the_loss_of_the_model() -> None:
    student, (idx, targets) = model(1), batch()
    torch.testing.assert_close(cross_entropy(student, idx, targets, 0), student(idx, targets).loss)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 0.0}, "temperature=0.0 must be above 0"),
        ({"weight": -1.0}, "weight=-1.0 must be above 0"),
        ({"match_steps": -1}, r"match_steps=-1 must be in \[0, inf\)"),
    ],
)
def test_distill_config_refuses(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DistillConfig(**settings)  # type: ignore[arg-type]
