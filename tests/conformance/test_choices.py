"""Repeated choices: what they excuse in 16 bits and in finite differences, and what they do not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lmzoo.conformance import check_model, reach
from lmzoo.conformance.choices import Choice, Choices
from lmzoo.conformance.report import Fault
from lmzoo.layers.dsa import DSA
from lmzoo.model import LanguageModel
from lmzoo.ops.stable_topk import stable_topk
from tests.museum.choosing import Choosing
from tests.museum.exhibits.choices_not_declared import MODEL as Undeclared
from tests.museum.exhibits.declared_choosing_and_does_not import MODEL as Unchoosing
from tests.museum.exhibits.scores_lost_in_bfloat16 import MODEL as Rounded

SCORES = torch.tensor([[3.0, 1.0, 2.0, 2.0, 0.0]])


def saw(model: type[LanguageModel], check: str) -> str:
    """Returns what a check that must fail says about a model."""
    result = check_model(model, only=[check]).results[0]
    assert not result.passed
    return result.saw


def choices(*, declared: bool = True) -> Choices:
    """Returns the choices of a run that takes the two largest of `SCORES`."""
    made = Choices((Choosing if declared else Undeclared)(Choosing.config_class(vocab_size=5)))
    with made.recorded():
        stable_topk(SCORES, 2)
    return made


def run(made: Choices, calls: list[tuple[Tensor, int]], *, chunks: int = 1) -> None:
    """Repeats choices in a run that calls `stable_topk` with these scores and numbers of entries."""
    with made.repeated("a run", chunks=chunks):
        for scores, k in calls:
            stable_topk(scores, k)


def test_choices_are_repeated_with_the_scores_of_the_run() -> None:
    with choices().repeated("a run"):
        values, indices = stable_topk(torch.tensor([[3.0, 1.0, 2.0, 2.5, 0.0]]), 2)
    assert indices.tolist() == [[0, 2]], "the exact run has taken the first of two equal scores"
    assert values.tolist() == [[3.0, 2.0]]


def test_choices_are_repeated_along_another_dimension() -> None:
    made = Choices(Choosing(Choosing.config_class(vocab_size=5)))
    with made.recorded():
        _, expected = stable_topk(SCORES.T, 2, dim=0)
    with made.repeated("a run"):
        _, indices = stable_topk(SCORES.T + torch.tensor([[0.0], [0.0], [0.0], [0.5], [0.0]]), 2, dim=0)
    assert torch.equal(indices, expected)


def test_choices_are_not_repeated_without_the_declaration() -> None:
    with choices(declared=False).repeated("a run"):
        _, indices = stable_topk(torch.tensor([[3.0, 1.0, 2.0, 2.5, 0.0]]), 2)
    assert indices.tolist() == [[0, 3]]


@pytest.mark.parametrize(
    ("scores", "k", "calls", "message"),
    [
        (SCORES[:, :4], 2, 1, r"a run calls stable_topk with scores of \(1, 4\), unlike the exact run"),
        (SCORES, 1, 1, r"a run calls stable_topk with scores of \(1, 5\), unlike the exact run"),
        (SCORES, 2, 2, r"a run calls stable_topk with scores of \(1, 5\), unlike the exact run"),
        (SCORES, 2, 0, "a run calls stable_topk 0 times, the exact run 1 times"),
        (-SCORES, 2, 1, "a run takes worse entries than the exact run: 100% of those that it leaves out are better"),
    ],
)
def test_choices_refuse_a_run_that_chooses_otherwise(scores: Tensor, k: int, calls: int, message: str) -> None:
    with pytest.raises(Fault, match=message):
        run(choices(), [(scores, k)] * calls)


@pytest.mark.parametrize(
    ("taken", "worse"),
    [([0, 2], [0.0]), ([3, 0], [0.0]), ([0, 1], [2 / 3]), ([1, 4], [1.0]), ([2, 3], [1 / 3])],
)
def test_choice_counts_better_entries_that_were_left_out(taken: list[int], worse: list[float]) -> None:
    choice = Choice(SCORES, torch.tensor([[0, 2]]))
    found = choice.worse(torch.tensor([taken]))
    torch.testing.assert_close(found, torch.tensor(worse))


def test_choice_ignores_rows_without_a_choice() -> None:
    scores = torch.tensor([[1.0, 2.0, -torch.inf], [1.0, 2.0, 3.0], [1.0, -torch.inf, -torch.inf]])
    choice = Choice(scores, torch.tensor([[1, 0], [2, 1], [0, 1]]))
    assert choice.worse(torch.tensor([[2, 1], [1, 0], [2, 1]])).tolist() == [1.0]
    assert choice.leaves_out
    assert not Choice(scores[[0, 2]], choice.indices[[0, 2]]).leaves_out


def test_choices_of_one_layer_in_all_chunks_are_judged_together() -> None:
    """Layer 0 of two is wrong in one of 20 chunks, layer 1 in three of them."""
    made = Choices(Choosing(Choosing.config_class(vocab_size=5)))
    with made.recorded():
        for _ in range(40):
            stable_topk(SCORES, 2)
    run(made, [(-SCORES, 2), *[(SCORES, 2)] * 39], chunks=20)
    with pytest.raises(Fault, match="call 1 of 2"):
        run(made, [*[(-SCORES, 2), (SCORES, 2)] * 3, *[(SCORES, 2)] * 34], chunks=20)


@pytest.mark.parametrize("check", ["bfloat16", "long_precision", "decoding_copies", "float64_gradients", "flops"])
def test_choices_declared_pass(check: str) -> None:
    report = check_model(Choosing, only=[check])
    assert report.passed, str(report)


@pytest.mark.parametrize("declared", [True, False])
def test_choices_are_fixed_in_finite_differences(declared: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that exchanges a key changes the loss by a jump, which is no gradient. The shortest ones exchange none."""
    monkeypatch.setattr(DSA, "chooses", declared)
    monkeypatch.setattr(reach, "STEPS", reach.STEPS[:2])
    result = check_model("sparse.1m", only=["long_gradients"]).results[0]
    assert result.passed == declared
    assert declared or "declare chooses=True in traits" in result.saw


def test_choices_not_declared_are_named_with_the_trait() -> None:
    found = saw(Undeclared, "long_precision")
    assert "is off by" in found
    assert "declare chooses=True in traits" in found


def test_choices_declared_and_not_made_are_refused() -> None:
    assert "no call of stable_topk leaves an entry out (0 calls)" in saw(Unchoosing, "long_precision")


def test_choices_lost_in_bfloat16_are_found_in_every_check_that_repeats_them() -> None:
    for check in ("bfloat16", "long_precision", "decoding_copies"):
        assert "takes worse entries than the exact run" in saw(Rounded, check)
