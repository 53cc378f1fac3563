"""Tests that the evaluation protocol is stated as it is."""

from __future__ import annotations

import dataclasses

import numpy as np

from lmzoo.compare import protocol
from lmzoo.data.store import TokenSplit
from tests.compare.example import example

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


def test_protocol_of_isolated_documents() -> None:
    split = dataclasses.replace(SPLIT, ends=np.array([1, 1001, 2001]))
    facts = protocol.describe(split, 256, 256, half=False)
    assert (facts["documents"], facts["targets"]) == ("isolated", 1998)
    said = protocol.sentence(dataclasses.replace(example(), protocol=facts))
    assert "are isolated, so a prediction sees its own only; longer ones are cut into pieces of 256 tokens" in said
    assert "reset at each piece, so a prediction sees 1 to 256 tokens. Each of the 1,998 targets" in said
