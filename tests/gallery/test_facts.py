"""Tests of `lmzoo.gallery.facts`: what is gathered about a family."""

from __future__ import annotations

import dataclasses

import pytest

import lmzoo
from lmzoo import registry
from lmzoo.errors import UnknownModelError
from lmzoo.gallery.facts import LENGTHS, gather
from lmzoo.model import LanguageModel


def test_gather_counts_a_model_of_the_measured_preset() -> None:
    facts = gather("mamba")
    assert facts.name == "mamba.1m"
    assert facts.title == "Mamba"
    assert facts.model.num_params() == facts.family.results["params"], "the model that results.json measured"
    assert facts.model.state_bytes(128) == facts.family.results["state_bytes"]
    assert list(facts.states) == list(LENGTHS)
    assert len(set(facts.states.values())) == 1, "a constant state"
    assert facts.drawing.T == 128
    assert {"d_model", "d_state"} <= facts.settings
    assert facts.file == "lmzoo/backbones/mamba.py"
    assert facts.source.startswith('"""Mamba')
    with pytest.raises(UnknownModelError):
        gather("mambo")


def test_gather_knows_a_family_without_an_entry() -> None:
    @lmzoo.register_model("bare-family")
    class Bare(registry.model_class("bigram")):  # type: ignore[misc]
        """A table of its own."""

    try:
        facts = dataclasses.replace(gather.__wrapped__("bare-family"))
        assert facts.family.name == "bare-family"
        assert isinstance(facts.model, LanguageModel)
        assert facts.file == __name__
    finally:
        del registry._classes["bare-family"]
