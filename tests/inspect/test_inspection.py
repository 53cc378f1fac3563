"""Tests inspections: surprises and alternatives by hand, cut texts, families without influence, JSON, notebooks."""

from __future__ import annotations

import json
import math
import sys

import pytest
import torch

import lmzoo
from lmzoo.conformance import subject
from lmzoo.data.tokenizers import ByteTokenizer, CharTokenizer
from lmzoo.errors import DataError, InputError
from lmzoo.inspect.influence import influence
from lmzoo.inspect.inspection import TOP, Inspection, examine, rounded
from lmzoo.inspect.recording import kind_of
from tests.inspect.texts import CHARS, HOSTILE, inspected

module = sys.modules["lmzoo.inspect.inspection"]


def test_examine_gives_surprises_ranks_and_alternatives() -> None:
    tokenizer = CharTokenizer(CHARS)
    model = subject("gpt2").model(vocab_size=tokenizer.vocab_size, context_length=32)
    found = examine(model, tokenizer, "a cat")
    ids = tokenizer.encode("a cat")
    log_p_TV = model(torch.tensor([ids])).logits[0].double().log_softmax(dim=-1)
    assert [token.id for token in found.tokens] == [*ids, None]
    assert "".join(token.text for token in found.tokens) == "a cat"
    assert found.tokens[0].nats is found.tokens[0].rank is None
    assert list(found.tokens[0].top) == []
    for t in range(1, 5):
        token = found.tokens[t]
        assert token.nats == pytest.approx(-log_p_TV[t - 1, ids[t]].item())
        assert token.bits == pytest.approx(token.nats / math.log(2))
        assert token.rank == 1 + int((log_p_TV[t - 1] > log_p_TV[t - 1, ids[t]]).sum())
    for t in range(1, 6):
        top_p, top_ids = log_p_TV[t - 1].exp().topk(TOP)
        assert [text for text, _ in found.tokens[t].top] == [CharTokenizer(CHARS).chars[i] for i in top_ids.tolist()]
        assert [p for _, p in found.tokens[t].top] == pytest.approx(top_p.tolist())
    assert found.nats == pytest.approx(-model.score(torch.tensor([ids])).mean().item(), rel=1e-5)
    assert found.bits_per_byte == pytest.approx(found.nats / math.log(2))
    assert torch.equal(found.influence, influence(model, torch.tensor([ids]))[0])
    assert found.name == "gpt2"
    assert not found.left_out
    assert found.note is None


def test_examine_ranks_equal_probabilities_as_it_lists_them() -> None:
    """A bigram that has learned nothing: the ranks of all tokens differ, and the first ones are listed."""
    tokenizer = CharTokenizer(CHARS)
    model = lmzoo.create_model("bigram", vocab_size=tokenizer.vocab_size)
    found = examine(model, tokenizer, "z" + tokenizer.chars)
    assert [token.rank for token in found.tokens[1:-1]] == [*range(1, tokenizer.vocab_size + 1)]
    for token in found.tokens[1 : TOP + 1]:
        assert token.rank is not None
        assert token.top[token.rank - 1][0] == token.text


def test_examine_counts_the_bytes_of_tokens() -> None:
    model = subject("bigram").model(vocab_size=256)
    found = examine(model, ByteTokenizer(), "a你")
    assert found.n_bytes == 3
    assert [token.text for token in found.tokens] == ["a", "⟨E4⟩", "⟨BD⟩", "你", ""]


@pytest.mark.parametrize(("family", "kept"), [("gpt2", 32), ("gru", 40)])
def test_examine_cuts_a_long_text(family: str, kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TOKENS", 40)
    found = inspected(family, "a" * 50, name="runs/x")
    assert len(found.tokens) == kept + 1
    assert found.left_out == 50 - kept
    assert found.note == f"runs/x: the text has 50 tokens: only the first {kept} are inspected"


def test_examine_takes_a_model_without_influence_and_one_token() -> None:
    found = inspected("ngram", "abc")
    assert found.influence is None
    assert found.problem == "ngram looks up no embedding of the tokens: influence needs one to take gradients of"
    assert len(found.recording) == 0
    single = inspected("gru", "a")
    assert (single.nats, single.bits_per_byte) == (0.0, 0.0)
    assert single.influence.shape == (1, 1)


def test_examine_refuses_what_it_cannot_read() -> None:
    with pytest.raises(InputError, match="text is empty"):
        inspected("gpt2", "")
    with pytest.raises(DataError, match="character '你'"):
        inspected("gpt2", "你")


def test_examine_keeps_maps_and_choices_and_means_of_the_rest() -> None:
    found = inspected("mixtral", "a cat").recording
    shapes = {kind_of(name): tuple(value.shape) for name, value in found.items()}
    assert shapes["attention.weights"][:2] == (1, 5)
    assert len(shapes["attention.weights"]) == 4
    assert shapes["router.chosen"][:2] == (1, 5)
    assert shapes["router.weights"] == shapes["features.rms"] == (1, 5)
    assert found["blocks.0.router.chosen"].dtype == torch.int64


def test_inspection_is_json_with_few_digits() -> None:
    values = json.loads(json.dumps(inspected("mamba", "a cat", name="m").to_dict(), allow_nan=False))
    assert values["name"] == "m"
    assert len(values["tokens"]) == 6
    assert values["tokens"][1].keys() == {"id", "text", "nats", "bits", "rank", "top"}
    assert len(values["influence"]) == len(values["influence"][0]) == 5
    assert len(values["layers"]["blocks.0.gates.decay"]) == 5
    assert not any("attention" in name for name in values["layers"])
    assert len(str(values["tokens"][1]["top"][0][1])) <= 8


def test_inspection_of_a_broken_model_is_json() -> None:
    tokenizer = CharTokenizer(CHARS)
    model = subject("gru").model(vocab_size=tokenizer.vocab_size)
    with torch.no_grad():
        next(model.head.parameters()).fill_(torch.nan)
    values = json.dumps(examine(model, tokenizer, "abc").to_dict(), allow_nan=False)
    assert json.loads(values)["tokens"][1]["nats"] is None


def test_inspection_is_a_colored_text_in_a_notebook() -> None:
    found = inspected("gpt2", HOSTILE, name="<run>")
    shown = found._repr_html_()
    assert "&lt;run&gt;" in shown
    assert shown.count("<span") == len(HOSTILE)
    assert ">&lt;</span>" in shown
    assert "<script" not in shown
    assert repr(found).startswith("<inspection of <run>: 18 tokens, ")
    assert isinstance(found, Inspection)


@pytest.mark.parametrize(
    ("value", "expected"), [(0.123456, 0.1235), ([1.0, [math.inf]], [1.0, [None]]), (123456.0, 123500.0)]
)
def test_rounded(value: object, expected: object) -> None:
    assert rounded(value) == expected
