"""Tests of top-k with ties, and that no layer or backbone uses the bare `torch.topk`."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch

import lmzoo
from lmzoo.ops.stable_topk import choosing, stable_topk
from tests.cases import each_case

PACKAGE = Path(lmzoo.__file__).parent


def bare_topks(source: str) -> list[int]:
    """The lines that use `torch.topk`, the method `topk`, or import it."""
    lines = []
    for node in ast.walk(ast.parse(source)):
        named = isinstance(node, ast.Attribute) and node.attr == "topk"
        imported = isinstance(node, ast.ImportFrom) and any(alias.name == "topk" for alias in node.names)
        if named or imported:
            lines.append(node.lineno)
    return sorted(lines)


def test_stable_topk_takes_the_lower_position_among_equal_scores() -> None:
    values, indices = stable_topk(torch.tensor([1.0, 3.0, 2.0, 3.0, 2.0, 2.0]), 4)
    assert values.tolist() == [3, 3, 2, 2]
    assert indices.tolist() == [1, 3, 2, 4]


@each_case("n", [3, 16, 17, 300, 5000])
def test_stable_topk_of_equal_scores_is_the_first_positions(n: int) -> None:
    _, indices = stable_topk(torch.zeros(2, n), 3)
    assert indices.tolist() == [[0, 1, 2]] * 2


@pytest.mark.parametrize("more", [1, 50, 3000])
def test_stable_topk_ignores_lower_or_equal_scores_appended_behind(more: int) -> None:
    scores = torch.randint(5, (4, 40), generator=torch.Generator().manual_seed(0)).float()
    values, indices = stable_topk(scores, 7)
    smallest = values[:, -1:]
    for behind in (smallest.expand(4, more), smallest - torch.rand(4, more)):
        longer = stable_topk(torch.cat([scores, behind], dim=1), 7)
        assert torch.equal(longer[0], values)
        assert torch.equal(longer[1], indices)


def test_stable_topk_along_another_dimension() -> None:
    scores = torch.randint(5, (3, 9, 4), generator=torch.Generator().manual_seed(0)).float()
    values, indices = stable_topk(scores, 2, dim=1)
    expected = stable_topk(scores.transpose(1, 2), 2)
    assert torch.equal(values, expected[0].transpose(1, 2))
    assert torch.equal(indices, expected[1].transpose(1, 2))


def test_stable_topk_sends_gradients_to_the_chosen_scores() -> None:
    scores = torch.tensor([1.0, 3.0, 2.0, 3.0], requires_grad=True)
    values, _ = stable_topk(scores, 3)
    (gradient,) = torch.autograd.grad((values * torch.tensor([1.0, 10.0, 100.0])).sum(), scores)
    assert gradient.tolist() == [0, 1, 100, 10]


def test_stable_topk_compiles_in_one_graph() -> None:
    scores = torch.randint(5, (4, 40), generator=torch.Generator().manual_seed(0)).float()
    compiled = torch.compile(stable_topk, fullgraph=True, backend="eager")(scores, 3)
    assert all(torch.equal(a, b) for a, b in zip(compiled, stable_topk(scores, 3), strict=True))


def test_choosing_sees_and_replaces_choices_along_any_dimension() -> None:
    scores = torch.tensor([[1.0, 5.0], [3.0, 4.0], [2.0, 6.0]], requires_grad=True)
    seen = []

    def chooser(given: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        seen.append((given.tolist(), given.requires_grad, indices.tolist()))
        return torch.zeros_like(indices)

    with choosing(chooser):
        values, indices = stable_topk(scores, 2, dim=0)
    assert seen == [([[1.0, 3.0, 2.0], [5.0, 4.0, 6.0]], False, [[1, 2], [2, 0]])]
    assert indices.tolist() == [[0, 0], [0, 0]]
    assert values.tolist() == [[1, 5], [1, 5]]
    assert values.requires_grad
    assert stable_topk(scores, 2, dim=0)[1].tolist() == [[1, 2], [2, 0]], "restored after the block"


def test_choosing_does_not_change_compiled_code() -> None:
    scores = torch.tensor([1.0, 3.0, 2.0])
    compiled = torch.compile(stable_topk, fullgraph=True, backend="eager")
    with choosing(lambda _, indices: torch.zeros_like(indices)):
        assert compiled(scores, 2)[1].tolist() == [1, 2]


@pytest.mark.parametrize("folder", ["layers", "backbones"])
def test_bare_topk_is_in_no_layer_and_no_backbone(folder: str) -> None:
    files = sorted((PACKAGE / folder).rglob("*.py"))
    assert files
    found = {str(file): lines for file in files if (lines := bare_topks(file.read_text(encoding="utf-8")))}
    assert not found, "use lmzoo.ops.stable_topk: torch.topk breaks ties by the length of its input"


def test_bare_topk_is_found_in_a_sample() -> None:
    sample = """
import torch
from torch import topk
from lmzoo.ops.stable_topk import stable_topk
a = torch.topk(scores, 2)
b = scores.softmax(-1).topk(2, dim=-1).indices
c = stable_topk(scores, 2)
"""
    assert bare_topks(sample) == [3, 5, 6]
