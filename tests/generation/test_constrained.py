"""Tests of constrained decoding: the text of a random model always matches the grammar."""

from __future__ import annotations

import json
import re

import pytest
import torch

import lmzoo
from lmzoo.data.tokenizers import Tokenizer, train_tokenizer
from lmzoo.errors import ConfigError, InputError
from lmzoo.generation import generate, generate_ragged
from lmzoo.generation.constrained import Constraint
from lmzoo.model import LanguageModel

TEXT = 'abc 0123456789 {"name": "a羊", "age": 42, "ok": [true, false, null]}\n' * 20
SCHEMA = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}, "age": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["ok", "age"],
    "additionalProperties": False,
}


def made(spec: str) -> tuple[LanguageModel, Tokenizer, int]:
    """A random model, its tokenizer, and the token of a line break."""
    tokenizer = train_tokenizer(spec, [TEXT])
    model = lmzoo.create_model("bigram", vocab_size=tokenizer.vocab_size)
    torch.nn.init.normal_(next(model.parameters()), generator=torch.Generator().manual_seed(0))
    return model, tokenizer, tokenizer.encode("\n")[0]


@pytest.mark.parametrize("spec", ["char", "byte", "bpe:300"])
def test_constraint_regex_holds_for_every_row_and_ends(spec: str) -> None:
    model, tokenizer, end = made(spec)
    pattern = r"(a|bc){2,6} [0-9]{3}羊?"
    rows = [[1], [2, 3, 4]]
    constraint = Constraint(tokenizer, [1, 3], regex=pattern, end_token=end)
    for _ in range(2):  # the second time with other texts: the cache of the first run must not matter
        out = generate_ragged(model, rows, 40, processors=[constraint], stop_tokens=[end])
        texts = [tokenizer.decode(o[len(r) :].tolist()) for o, r in zip(out, rows, strict=True)]
        for text in texts:
            assert text.endswith("\n"), "it was ended"
            assert re.fullmatch(pattern, text.rstrip("\n")), text
    assert len(set(texts)) == 2


def test_constraint_json_schema_gives_valid_json() -> None:
    model, tokenizer, end = made("char")
    idx = torch.tensor([[1, 2]]).expand(8, 2)
    constraint = Constraint(tokenizer, 2, json_schema=SCHEMA, end_token=end)
    out = generate(model, idx, 120, processors=[constraint], stop_tokens=[end], seeds=range(8))
    for row in out[:, 2:].tolist():
        found = json.loads(tokenizer.decode(row[: row.index(end)]))
        assert found.keys() == {"ok", "age"}
        assert 0 <= found["age"] <= 99
    assert torch.equal(generate(model, idx, 120, processors=[constraint], stop_tokens=[end], seeds=range(8)), out)


def test_constraint_allows_only_possible_tokens() -> None:
    _, tokenizer, end = made("char")
    constraint = Constraint(tokenizer, 0, regex="ab?", end_token=end)
    a, b = tokenizer.encode("ab")

    def left(*tokens: int) -> list[int]:
        history = torch.tensor([tokens], dtype=torch.long)
        return (constraint(torch.zeros(1, tokenizer.vocab_size), history)[0] == 0).nonzero().flatten().tolist()

    assert left() == [a]
    assert left(a) == sorted([b, end])
    assert left(a, b) == [end]
    assert left(a, end) == left(a, end, end) == [end]
    assert left(a) == sorted([b, end]), "an earlier text again"
    with pytest.raises(InputError, match="row 0: the new text does not match the grammar"):
        left(b)


def test_constraint_refuses_bad_arguments() -> None:
    _, tokenizer, end = made("char")
    with pytest.raises(ConfigError, match="needs one of regex and json_schema"):
        Constraint(tokenizer, 1, end_token=end)
    with pytest.raises(ConfigError, match=r"regex cannot be used: .*unclosed group"):
        Constraint(tokenizer, 1, end_token=end, regex="(a")
    with pytest.raises(ConfigError, match="json_schema is not JSON"):
        Constraint(tokenizer, 1, end_token=end, json_schema="{")
    with pytest.raises(ConfigError, match="end_token=-1 must be"):
        Constraint(tokenizer, 1, end_token=-1, regex="a")
    unknown = Constraint(tokenizer, 1, end_token=end, regex="Q")
    with pytest.raises(InputError, match="row 0: the tokenizer has no token"):
        unknown(torch.zeros(1, tokenizer.vocab_size), torch.tensor([[1]]))
