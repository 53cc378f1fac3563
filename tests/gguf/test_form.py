"""Tests of the rules that say which models an architecture of GGUF can hold."""

from __future__ import annotations

from lmzoo.gguf.form import all_of, every_nth, layers_are, no_windows


def test_no_windows_may_not_be_shorter_than_the_context() -> None:
    assert no_windows({"window": None, "context_length": 8}) is None
    assert no_windows({"window": 8, "context_length": 8}) is None
    assert no_windows({"context_length": 8}) is None
    assert no_windows({"window": 7, "context_length": 8}) == "window=7 must be None"


def test_layers_are_of_the_given_words() -> None:
    rule = layers_are("rope", "full", windowed="rope")
    settings = {"pattern": "rope full", "n_layers": 3, "window": None, "context_length": 8}
    assert rule(settings) is None
    assert rule({**settings, "pattern": "rope nope"}) == "pattern='rope nope' must have only rope or full"
    assert rule({**settings, "window": 4}) == "window=4 must be None"
    assert rule({**settings, "window": 4, "pattern": "full"}) is None
    assert layers_are("rope", "full")({**settings, "window": 4}) is None


def test_every_nth_layer_is_another() -> None:
    rule = every_nth(3, "local", "global")
    assert rule({"pattern": "local*2 global", "n_layers": 7}) is None
    assert rule({"pattern": "local*6 global", "n_layers": 2}) is None, "the first layers are the same"
    assert rule({"pattern": "local global", "n_layers": 3}) == "pattern='local global' must be local*2 global"


def test_all_of_gives_the_first_reason() -> None:
    assert all_of(lambda _: None, lambda _: "a", lambda _: "b")({}) == "a"
    assert all_of(lambda _: None)({}) is None
