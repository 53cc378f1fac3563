"""Clones of models."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from lmzoo.conformance import subject
from lmzoo.conformance.clones import clone


class Cells(nn.Module):
    """Holds what is hard to copy: shared values, a bound method, weights that torch keeps in an order of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(2, 2), nn.Linear(2, 2)
        self.second.weight = self.first.weight
        self.same = self.first
        self.gru = nn.GRU(2, 2)
        self.register_buffer("count", torch.zeros(1), persistent=False)
        self.seen: list[int] = []
        self.first.seen = self.seen  # type: ignore[assignment]
        self.kept = {"value": [torch.ones(1)]}
        self.call = self.double_count
        self.first.register_forward_hook(lambda module, args, output: output + 1)

    def double_count(self) -> Tensor:
        return 2 * self.count


class WithProtocol(nn.Linear):
    def __deepcopy__(self, memo: dict[int, object]) -> str:
        return "its own copy"


@pytest.mark.parametrize("family", ["mixtral", "lstm", "ngram"])
def test_clone_computes_the_same_and_shares_no_tensor(family: str) -> None:
    model = subject(family).model()
    idx = torch.arange(12).view(2, 6)
    expected, made = model(idx).logits, clone(model)
    assert torch.equal(made(idx).logits, expected)
    assert type(made) is type(model)
    assert [name for name, _ in made.named_modules()] == [name for name, _ in model.named_modules()]
    assert not {t.data_ptr() for t in made.state_dict().values()} & {t.data_ptr() for t in model.state_dict().values()}
    with torch.no_grad():
        for tensor in made.state_dict().values():
            tensor.zero_()
    assert torch.equal(model(idx).logits, expected)


def test_clone_keeps_what_is_shared_within_the_model() -> None:
    cells = Cells()
    made = clone(cells)
    assert made.second.weight is made.first.weight is not cells.first.weight
    assert made.same is made.first
    assert made.first.seen is made.seen is not cells.seen
    assert made.kept["value"] is not cells.kept["value"]
    made.count += 3
    assert made.call() == 6
    assert cells.call() == 0
    assert made.state_dict().keys() == cells.state_dict().keys()
    x = torch.ones(1, 2)
    assert torch.equal(made.first(x), cells.first(x))
    assert torch.equal(made.gru(x)[0], cells.gru(x)[0])


def test_clone_leaves_a_class_with_its_own_protocol_to_it() -> None:
    holder = nn.Sequential(WithProtocol(1, 1))
    assert clone(holder)._modules["0"] == copy.deepcopy(holder)._modules["0"] == "its own copy"
