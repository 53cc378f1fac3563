"""Tests the final evaluation: losses by position, beyond the training length, and by class of token."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

import lmzoo
from lmzoo.compare.final_evaluation import FinalEvaluation, LastPass, beyond, mean_losses
from lmzoo.compare.token_classes import MEANINGS, TokenClasses
from lmzoo.data.documents import split_windows
from lmzoo.data.store import TokenSplit
from lmzoo.data.tokenizers import Tokenizer, train_tokenizer
from lmzoo.model import LanguageModel
from lmzoo.train.evaluate import evaluate, result_of
from lmzoo.train.token_losses import token_losses
from tests.helpers import TEXT, far_from_uniform

LENGTH = 600
TOKENIZER = train_tokenizer("char", iter([TEXT]))


def split_of(text: str, tokenizer: Tokenizer = TOKENIZER) -> TokenSplit:
    ids = tokenizer.encode_array(text)
    return TokenSplit("", "val", ids, ids.size, 2 * ids.size, ids.size)  # two bytes for each token


def model_of(name: str) -> LanguageModel:
    width = {} if name == "bigram" else {"d_model": 16}
    model = lmzoo.create_model(f"{name}.tiny", vocab_size=TOKENIZER.vocab_size, context_length=16, **width)
    return far_from_uniform(model, 0.5, seed=1)


def test_final_evaluation_of_isolated_documents_adds_up_to_the_loss() -> None:
    model, joined = model_of("gpt2"), split_of(TEXT[:LENGTH])
    split = dataclasses.replace(joined, ends=np.array([7, 9, 200, 201, LENGTH]))
    found = FinalEvaluation(split, TokenClasses(split, split.tokens, TOKENIZER))(model, "float32", further=True)
    plain = evaluate(model, split)
    assert plain.tokens == LENGTH - 5
    assert (found.loss, found.bits_per_byte) == pytest.approx((plain.loss, plain.bits_per_byte), abs=1e-5)
    assert sum(part["loss"] * part["tokens"] for part in found.by_position) / plain.tokens == pytest.approx(plain.loss)
    losses = {part["name"]: (part["loss"], part["tokens"]) for part in found.by_class}
    loss_N, blanks = token_losses(model, split).loss_N, TOKENIZER.encode(" \n")
    targets = np.concatenate([targets_BT[counted_BT] for _, targets_BT, counted_BT in split_windows(split, 3, 16)])
    blank_N = np.isin(targets, blanks)
    assert losses["whitespace"][1] == blank_N.sum()
    assert losses["whitespace"][0] == pytest.approx(loss_N[blank_N].mean(), abs=1e-5)


def test_last_pass_keeps_the_losses_of_an_evaluation() -> None:
    model, split, last = model_of("gpt2"), split_of(TEXT[:LENGTH]), LastPass()
    found, plain = result_of(last(model, split, "float32")), evaluate(model, split)
    assert last.losses is not None
    assert dataclasses.replace(found, loss=plain.loss, bits_per_byte=plain.bits_per_byte) == plain
    assert (found.loss, found.bits_per_byte) == pytest.approx((plain.loss, plain.bits_per_byte), abs=1e-6)
    evaluation = FinalEvaluation(split, TokenClasses(split, split.tokens, TOKENIZER))
    once = evaluation(model, "float32", further=False, losses=last.losses)
    assert once == evaluation(model, "float32", further=False)


@pytest.mark.parametrize("stride", [None, 4])
def test_final_evaluation_adds_up_to_the_loss(stride: int | None) -> None:
    model, split = model_of("gpt2"), split_of(TEXT[:LENGTH])
    evaluation = FinalEvaluation(split, TokenClasses(split, split.tokens, TOKENIZER), stride)
    found = evaluation(model, "float32", further=True)
    plain = evaluate(model, split, stride=stride)
    assert found.loss == pytest.approx(plain.loss, abs=1e-5)
    assert found.bits_per_byte == pytest.approx(plain.bits_per_byte, abs=1e-5)
    assert [(part["first"], part["last"]) for part in found.by_position] == [(1, 1), (2, 2), (3, 4), (5, 8), (9, 16)]
    if stride is None:
        total = sum(part["loss"] * part["tokens"] for part in found.by_position)
        assert total / (LENGTH - 1) == pytest.approx(found.loss, abs=1e-6)
    by_class = {part["name"]: part for part in found.by_class}
    assert list(by_class) == list(MEANINGS)
    pair, other = by_class["repeated bigram"], by_class["not repeated"]
    assert pair["tokens"] + other["tokens"] == LENGTH - 1
    mean = (pair["loss"] * pair["tokens"] + other["loss"] * other["tokens"]) / (LENGTH - 1)
    assert mean == pytest.approx(found.loss, abs=1e-6)
    assert pair["loss"] != pytest.approx(other["loss"], abs=1e-3)
    losses = token_losses(model, split, stride=stride).loss_N
    spaces = [loss for loss, char in zip(losses, TEXT[1:LENGTH], strict=True) if char.isspace()]
    assert by_class["whitespace"] == {
        "name": "whitespace",
        "loss": pytest.approx(np.mean(spaces, dtype=np.float64)),
        "tokens": len(spaces),
    }


def test_final_evaluation_has_no_loss_for_a_class_without_tokens() -> None:
    split = split_of("".join(TEXT[:200].split()))
    evaluation = FinalEvaluation(split, TokenClasses(split, split.tokens, TOKENIZER))
    found = {part["name"]: part for part in evaluation(model_of("bigram"), "float32", further=False).by_class}
    assert found["whitespace"] == {"name": "whitespace", "loss": None, "tokens": 0}


def test_final_evaluation_reads_further_if_the_model_can_and_is_asked() -> None:
    split = split_of(TEXT[:LENGTH])
    evaluation = FinalEvaluation(split, TokenClasses(split, split.tokens, TOKENIZER))
    last = {
        (name, further): evaluation(model_of(name), "float32", further=further).by_position[-1]["last"]
        for name in ("lstm", "gpt2")
        for further in (True, False)
    }
    assert last == {("lstm", True): 64, ("lstm", False): 16, ("gpt2", True): 16, ("gpt2", False): 16}


@pytest.mark.parametrize(
    ("n_tokens", "ranges"), [(33, [(17, 32)]), (64, [(17, 32)]), (65, [(17, 32), (33, 64)]), (32, [])]
)
def test_beyond_has_the_longest_windows_that_fit(n_tokens: int, ranges: list[tuple[int, int]]) -> None:
    model, split = model_of("lstm"), split_of(TEXT[:n_tokens])
    found = beyond(model, split, "float32")
    assert [(part.first, part.last) for part in found] == ranges
    if found:
        longest = found[-1].last
        losses = token_losses(model, split, context_length=longest).loss_N
        windows = [losses[start : start + longest][16:32] for start in range(0, len(losses), longest)]
        assert found[0].loss == pytest.approx(float(np.concatenate(windows).mean()), abs=1e-5)


def test_final_evaluation_stores_no_number_that_json_cannot_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    split = split_of(TEXT[:LENGTH])
    model = model_of("lstm")
    features = type(model).features

    def overflowing(self: LanguageModel, idx_BT: object, state: object = None) -> tuple[object, object]:
        x_BTD, state = features(self, idx_BT, state)
        x_BTD[:, 40:] = math.inf
        return x_BTD, state

    monkeypatch.setattr(type(model), "features", overflowing)
    found = FinalEvaluation(split, TokenClasses(split, split.tokens, TOKENIZER))(model, "float32", further=True)
    assert math.isfinite(found.loss)
    assert [part["loss"] is None for part in found.by_position[-2:]] == [False, True]


def test_mean_losses_average_each_range_over_the_seeds_that_have_it() -> None:
    parts = [{"first": n, "last": n, "loss": float(n), "tokens": 5} for n in (1, 2, 3)]
    other = [{**part, "loss": part["loss"] + 1} for part in parts[:2]]
    assert mean_losses([parts, other]) == [
        {"first": 1, "last": 1, "loss": 1.5, "tokens": 5},
        {"first": 2, "last": 2, "loss": 2.5, "tokens": 5},
        parts[2],
    ]
    assert mean_losses([parts, [{**parts[0], "loss": None}]])[0]["loss"] is None
    assert mean_losses([]) == []
