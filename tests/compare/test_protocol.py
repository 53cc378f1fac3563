"""Tests that the evaluation protocol is stated as it is."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from lmzoo.compare import protocol
from lmzoo.compare.report import html
from lmzoo.compare.results import Results
from lmzoo.data.store import TokenSplit
from lmzoo.errors import ConfigError
from lmzoo.runs.run import make_spec
from tests.compare.example import example

STATES = [("best", 5_000_000, "linear"), ("close", 2_000, "constant"), ("slow", 0, "none"), ("other", 1, "none")]
SPLIT = TokenSplit("", "val", np.zeros(2001, np.uint16), 2001, 2001, 2001)


def test_describe_has_every_fact() -> None:
    assert protocol.describe(SPLIT, 256, 64, half=True) == {
        "split": "half",
        "documents": "joined",
        "context": "reset",
        "context_length": 256,
        "stride": 64,
        "targets": 2000,
    }


def test_sentence_states_windows_context_and_split() -> None:
    def said(stride: int, *, half: bool) -> str:
        facts = protocol.describe(SPLIT, 256, stride, half=half)
        return protocol.sentence(dataclasses.replace(example(), protocol=facts))

    plain = said(256, half=False)
    assert plain.startswith("Evaluation: the documents of the validation split are joined and read in windows of 256 ")
    assert "that do not overlap" in plain
    assert "a prediction sees 1 to 256 tokens. Each of the 2,000 targets counts once." in plain
    strided = said(64, half=True)
    assert "the half of the validation split that is reported" in strided
    assert "start 64 tokens apart" in strided
    assert "a prediction sees at least 193 tokens (fewer in the first window)" in strided
    assert "start 1 token apart" in said(1, half=False)
    assert protocol.sentence(example()) == ""


def carried(split: TokenSplit, context_length: int) -> Results:
    states = {name: {"bytes": size, "growth": growth} for name, size, growth in STATES}
    facts = protocol.describe(split, context_length, context_length, half=False, states=states)
    return dataclasses.replace(example(), protocol=facts)


def test_protocol_of_a_carried_context() -> None:
    results = carried(SPLIT, 8)
    facts = results.protocol
    assert (facts["context"], facts["rows"], facts["longest_row"]) == ("carried", 3, 667)
    assert protocol.is_carried(results)
    said = protocol.sentence(results)
    assert "in 3 rows of 667 tokens, side by side, in windows of 8 tokens; the context is carried from" in said
    assert "so a prediction sees 1 to 667 tokens, all before it in its row" in said
    assert "Each of the 2,000 targets counts once." in said
    assert "joined and read in one row in windows of 256 tokens" in protocol.sentence(carried(SPLIT, 256))
    isolated = dataclasses.replace(SPLIT, ends=np.array([1, 1001, 2001]))
    said = protocol.sentence(carried(isolated, 256))
    assert "begins anew at each document, so a prediction sees 1 to 999 tokens of its own" in said


def test_carried_states_are_those_after_the_longest_row() -> None:
    specs = {name: make_spec(name, "text", overrides={"context_length": 8}) for name in ("lstm.tiny", "llama.tiny")}
    states = protocol.carried_states(specs, [SPLIT], 30)
    model = specs["llama.tiny"].make_model(30)
    assert states["llama.tiny"] == {"bytes": model.state_bytes(667), "growth": "linear"}
    lstm = specs["lstm.tiny"].make_model(30)
    assert states["lstm.tiny"] == {"bytes": lstm.state_bytes(1), "growth": "constant"}
    gpt2 = {"gpt2+muon": make_spec("gpt2.tiny", "text", overrides={"context_length": 8})}
    with pytest.raises(ConfigError, match=r"^context='carried' cannot be given: gpt2\+muon sees at most"):
        protocol.carried_states(gpt2, [SPLIT], 30)


def test_state_note_says_which_states_grow() -> None:
    results = carried(SPLIT, 8)
    assert protocol.state_note(results) == (
        "States that grow with the text, and with them the time of a window: best from 16.4 kB after 8 tokens to 5.00 "
        "MB after 667. States of constant size: close (2.00 kB) and slow (0 B). No model was trained on more than 8 "
        "tokens of context."
    )
    assert protocol.state_note(example()) == ""


@pytest.mark.parametrize(
    ("facts", "differs"),
    [
        (protocol.describe(SPLIT, 256, 256, half=False), False),
        (protocol.describe(SPLIT, 256, 64, half=False), True),
        (protocol.describe(SPLIT, 256, 256, half=False, states={}), True),
        ({}, False),
    ],
)
def test_differs_in_training(facts: dict[str, Any], differs: bool) -> None:
    results = dataclasses.replace(example(), protocol=facts)
    assert protocol.differs_in_training(results) == differs
    assert ("so the last ones differ from the losses in the table" in html(results)) == differs


def test_protocol_of_isolated_documents() -> None:
    split = dataclasses.replace(SPLIT, ends=np.array([1, 1001, 2001]))
    facts = protocol.describe(split, 256, 256, half=False)
    assert (facts["documents"], facts["targets"]) == ("isolated", 1998)
    said = protocol.sentence(dataclasses.replace(example(), protocol=facts))
    assert "are isolated (a prediction sees only its own document) and cut into pieces of at most 256 tokens" in said
    assert said.endswith("Bits per byte are over all UTF-8 bytes of the evaluated text.")
    assert "reset at each piece, so a prediction sees 1 to 256 tokens. Each of the 1,998 targets" in said
