"""Tests of declared against counted FLOPs, on models that run modules more or less than once per token."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lmzoo
from lmzoo.errors import InputError
from lmzoo.flops import counting, declared_flops, flops_per_token, measured_flops
from lmzoo.model import LanguageModel, ModelConfig, Traits
from lmzoo.ops.counting import counted_as
from lmzoo.ops.delta_chunks import CHUNK_LENGTH
from lmzoo.ops.delta_rule import delta_rule

V, D = 13, 8
CONFIG = ModelConfig(vocab_size=V, context_length=100)


class Mixer(nn.Module):
    """A product with the causal mean of all T positions: one linear map, and 2 T D FLOPs for the mean."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(D, D)

    def flops(self, T: int) -> float:
        return 2.0 * T * D

    def forward(self, x_BTD: Tensor) -> Tensor:
        T = x_BTD.shape[1]
        return torch.ones(T, T).tril() @ self.map(x_BTD)


class Model(LanguageModel):
    """Base model: embedding, `self.body`, head; each subclass is a test case."""

    traits: ClassVar[Traits] = Traits(extrapolates=True)  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__(CONFIG)
        self.table = nn.Embedding(V, D)
        self.block = Mixer()
        self.head = nn.Linear(D, V)

    def features(self, idx_BT: Tensor, state: object = None) -> tuple[Tensor, object]:
        return self.body(self.table(idx_BT)), state

    def body(self, x_BTD: Tensor) -> Tensor:
        return self.block(x_BTD)


class Looped(Model):
    def calls(self, T: int) -> dict[str, tuple[float, int]]:
        return {"block": (3.0, T)}

    def body(self, x_BTD: Tensor) -> Tensor:
        for _ in range(3):
            x_BTD = self.block(x_BTD)
        return x_BTD


class Patched(Model):
    """A model whose block reads every fourth position."""

    def calls(self, T: int) -> dict[str, tuple[float, int]]:
        return {"block": (0.25, T // 4)}

    def body(self, x_BTD: Tensor) -> Tensor:
        return self.block(x_BTD[:, ::4]).repeat_interleave(4, dim=1)


class TrainingHead(Model):
    """A second head that the forward pass does not run."""

    def __init__(self) -> None:
        super().__init__()
        self.extra_head = nn.Linear(D, V)

    def calls(self, T: int) -> dict[str, tuple[float, int]]:
        return {"extra_head": (0.0, T)}


class Shared(Model):
    """Two parents that run the same block, and one of them runs it under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.twice = nn.Sequential(self.block, self.block)

    def body(self, x_BTD: Tensor) -> Tensor:
        return self.twice(self.block(x_BTD))


class Memory(Model):
    """The delta rule, whose chunked form runs other products than its definition."""

    class Layer(nn.Module):
        def flops(self, T: int) -> float:
            return 6.0 * D * D

        def forward(self, x_BTD: Tensor) -> Tensor:
            x_BT1D = x_BTD[:, :, None]
            return delta_rule(x_BT1D, F.normalize(x_BT1D, dim=-1), x_BT1D, torch.ones(x_BT1D.shape[:3]))[0][:, :, 0]

    def __init__(self) -> None:
        super().__init__()
        self.block = self.Layer()  # type: ignore[assignment]


class Declared(Model):
    """A part of the forward pass that counts as 5 FLOPs per token."""

    def flops(self, T: int) -> float:
        return 5.0

    def body(self, x_BTD: Tensor) -> Tensor:
        with counted_as(5 * x_BTD.shape[0] * x_BTD.shape[1]):
            x_BTD = x_BTD @ torch.eye(D)
        return self.block(x_BTD)


MIXER, HEAD = 2 * D * D, 2 * D * V  # without what the mixer declares for itself


@pytest.mark.parametrize(
    ("cls", "expected"),
    [
        (Model, lambda T: MIXER + 2 * T * D + HEAD),
        (Looped, lambda T: 3 * (MIXER + 2 * T * D) + HEAD),
        (Patched, lambda T: (MIXER + 2 * (T // 4) * D) / 4 + HEAD),
        (TrainingHead, lambda T: MIXER + 2 * T * D + HEAD),
        (Shared, lambda T: 3 * (MIXER + 2 * T * D) + HEAD),
        (Memory, lambda T: 6 * D * D + HEAD),
        (Declared, lambda T: 5 + MIXER + 2 * T * D + HEAD),
    ],
)
@pytest.mark.parametrize("T", [4, 2 * CHUNK_LENGTH + 4])
def test_flops_per_token_is_what_is_counted(cls: type[Model], expected, T: int) -> None:
    model = cls()
    assert flops_per_token(model, T) == expected(T)
    with counting() as counter:
        model(torch.zeros(1, T, dtype=torch.long))
    assert counter.get_total_flops() / T == expected(T)


def test_declared_flops_of_a_module_leaves_out_its_children() -> None:
    class Whole(nn.Linear):
        def flops(self, T: int) -> float:
            return 1.0

    assert declared_flops(nn.Linear(3, 5), 7) == 2 * 3 * 5
    assert declared_flops(Whole(3, 5), 7) == 1, "a declaration goes before the formula for nn.Linear"
    assert declared_flops(nn.Sequential(Whole(3, 5), nn.ReLU(), nn.Linear(5, 2)), 7) == 1 + 2 * 5 * 2


def test_declared_flops_nests_calls() -> None:
    """A block run twice inside a block run three times at half the length."""

    class Outer(nn.Module):
        def __init__(self, child: nn.Module, times: float, part: int) -> None:
            super().__init__()
            self.child, self.times, self.part = child, times, part

        def calls(self, T: int) -> dict[str, tuple[float, int]]:
            return {"child": (self.times, T // self.part)}

    model = Outer(Outer(Mixer(), 2.0, 1), 1.5, 2)
    assert declared_flops(model, 8) == 1.5 * 2 * (MIXER + 2 * 4 * D)


def test_declared_flops_refuses_calls_of_an_unknown_child() -> None:
    class Misspelled(Model):
        def calls(self, T: int) -> dict[str, tuple[float, int]]:
            return {"blok": (3.0, T)}

    with pytest.raises(ValueError, match=r"Misspelled\.calls\(4\) names 'blok', which is none of its children"):
        declared_flops(Misspelled(), 4)


def test_flops_per_token_is_measured_where_no_module_declares() -> None:
    class Plain(Model):
        traits = Traits(extrapolates=False)  # type: ignore[assignment]

        def __init__(self) -> None:
            super().__init__()
            self.block = nn.GRU(D, D, batch_first=True)  # type: ignore[assignment]

        def body(self, x_BTD: Tensor) -> Tensor:
            return self.block(x_BTD)[0]

    model = Plain()
    expected = 2 * (2 * 3 * D * D) + HEAD
    assert flops_per_token(model, 4) == measured_flops(model, 4) == expected
    assert flops_per_token(model, 10 * CONFIG.context_length) == expected, "measured up to its context"


def test_counting_takes_a_module_whose_input_is_a_view_of_a_parameter() -> None:
    class Filter(Model):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(2, D, D))
            self.identity = nn.Identity()

        def body(self, x_BTD: Tensor) -> Tensor:
            return self.block(x_BTD @ self.identity(self.weight[0]))

    model = Filter()
    with counting() as counter:
        model(torch.zeros(1, 4, dtype=torch.long))
    assert counter.get_total_flops() / 4 == 2 * D * D + MIXER + 2 * 4 * D + HEAD


def test_counting_leaves_the_model_as_it_was() -> None:
    model = Model()
    model.head.requires_grad_(False)
    before = [parameter.requires_grad for parameter in model.parameters()]
    with pytest.raises(RuntimeError), counting():
        model.body(torch.ones(1, 3, D + 1))
    assert [parameter.requires_grad for parameter in model.parameters()] == before
    assert torch.is_grad_enabled()


def test_measured_flops_has_a_limit_of_length() -> None:
    model = lmzoo.create_model("bigram", vocab_size=5, context_length=1 << 20)
    with pytest.raises(InputError, match=f"T={1 << 20} must be at most"):
        measured_flops(model, 1 << 20)
