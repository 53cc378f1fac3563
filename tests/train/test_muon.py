"""Tests Muon against torch's implementation and its definition in float64, and on every family."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.optim import AdamW

from lmzoo import registry
from lmzoo.conformance import subject
from lmzoo.train import muon
from lmzoo.train.config import TrainConfig
from lmzoo.train.muon import COEFFICIENTS, ITERATIONS, Muon, orthogonalized
from lmzoo.train.optimizer import make_optimizer

FAMILIES = list(registry.families())


def random_parameters(*shapes: tuple[int, ...]) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(5)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]


def give_gradients(parameters: list[nn.Parameter], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, generator=generator)


@pytest.mark.parametrize(
    ("in_bf16", "dtype", "tolerance"),
    [(True, torch.bfloat16, 0.03), (False, torch.float32, 1e-4)],  # bfloat16 has three digits, of which one is lost
)
@pytest.mark.parametrize("shape", [(24, 24), (16, 40), (1, 7)])
def test_orthogonalized_moves_singular_values_alone(
    shape: tuple[int, int], in_bf16: bool, dtype: torch.dtype, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(muon, "multiplies_bf16", lambda device: in_bf16)
    x = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    left, values, right = torch.linalg.svd(x, full_matrices=False)
    a, b, c = COEFFICIENTS
    wanted = values / x.norm(dim=(1, 2))[:, None]
    for _ in range(ITERATIONS):
        wanted = a * wanted + b * wanted**3 + c * wanted**5
    assert wanted.min() > 0.6
    assert wanted.max() < 1.2
    found = orthogonalized(x)
    assert found.dtype == dtype
    assert (left.mT @ found.double() @ right.mT - torch.diag_embed(wanted)).abs().max() < tolerance


def test_orthogonalized_zeros_are_zeros() -> None:
    assert not orthogonalized(torch.zeros(1, 4, 5)).any()


def test_muon_equals_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(muon, "multiplies_bf16", lambda device: True)  # torch always rounds to bfloat16
    shapes = [(48, 16), (16, 16), (16, 48), (64, 16), (16, 48), (48, 16)]
    ours, theirs = random_parameters(*shapes), random_parameters(*shapes)
    settings = {"lr": 0.05, "weight_decay": 0.2}
    our_muon = Muon([{"params": ours, "role": "matrix"}], **settings)
    reference = torch.optim.Muon(theirs, **settings, adjust_lr_fn="match_rms_adamw")
    begun = [parameter.detach().clone() for parameter in ours]
    for step in range(4):
        for parameters, optimizer in ((ours, our_muon), (theirs, reference)):
            give_gradients(parameters, step)
            optimizer.step()
        for mine, other, first in zip(ours, theirs, begun, strict=True):
            assert (mine - other).norm() < 0.02 * (other - first).norm()
            momentum = our_muon.state[mine]["momentum_buffer"]
            torch.testing.assert_close(momentum, reference.state[other]["momentum_buffer"])


def test_muon_takes_a_stack_of_matrices_as_its_matrices() -> None:
    """Role `matrices`: the last two axes are the matrix; one step is the same as with separate parameters."""
    (stack,) = random_parameters((3, 8, 5))
    apart = [nn.Parameter(matrix.clone()) for matrix in stack.detach()]
    give_gradients([stack], seed=1)
    for matrix, gradient in zip(apart, stack.grad, strict=True):
        matrix.grad = gradient.clone()
    for parameters, role in (([stack], "matrices"), (apart, "matrix")):
        Muon([{"params": parameters, "role": role}], lr=0.1, weight_decay=0.2).step()
    assert torch.equal(stack, torch.stack(apart))


def test_muon_leaves_other_parameters_to_adamw() -> None:
    shapes = [(9, 4), (6,), (4, 3, 2), (5, 4)]
    ours, theirs = random_parameters(*shapes), random_parameters(*shapes)

    def groups(table: Tensor, vector: Tensor, filters: Tensor, idle: Tensor) -> list[dict[str, object]]:
        return [
            {"params": [table], "role": "embedding", "weight_decay": 0.1},
            {"params": [vector], "role": "vector", "weight_decay": 0.0},
            {"params": [filters, idle], "role": "matrix", "weight_decay": 0.1},
        ]

    for parameters, kind in ((ours, Muon), (theirs, AdamW)):
        optimizer = kind(groups(*parameters), lr=0.1, fused=True)
        for step in range(3):
            give_gradients(parameters[:3], step)  # the last has no gradient, like an unused parameter
            optimizer.step()
    assert all(torch.equal(mine, other) for mine, other in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("family", FAMILIES)
def test_muon_trains_every_family(family: str) -> None:
    """The loss of one batch falls, with Muon for the matrices and AdamW for the other parameters."""
    sized = subject(family)
    model = sized.model(perturbed=False).train()
    tokens = sized.tokens(4, 17)
    optimizer = make_optimizer(model, TrainConfig(optimizer="muon", learning_rate=0.02, weight_decay=0.0))
    if not model.traits.trainable:
        assert [group["params"] for group in optimizer.param_groups] == [[]]
        return
    losses: list[float] = []
    while len(losses) < 200 and (not losses or losses[-1] >= 0.7 * losses[0]):
        loss = model(tokens[:, :-1], tokens[:, 1:]).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    kinds = {name: set(optimizer.state[parameter]) for name, parameter in model.named_parameters()}
    matrices = {
        id(p)
        for group in model.parameter_groups(0.0)
        if group["role"] in ("matrix", "matrices")
        for p in group["params"]
    }
    for name, parameter in model.named_parameters():
        assert kinds[name] == ({"momentum_buffer"} if id(parameter) in matrices else {"step", "exp_avg", "exp_avg_sq"})
