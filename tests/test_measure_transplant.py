"""Tests scripts/measure_transplant: when a model counts as healed, and that the arms differ in one thing each."""

from __future__ import annotations

import pytest

from tests.helpers import load_script


def test_near_takes_evaluations_within_the_margin(monkeypatch: pytest.MonkeyPatch) -> None:
    script = load_script("measure_transplant", monkeypatch)
    assert script.near({"split": "val", "loss": 1.515}, 1.5)
    assert script.near({"split": "val", "loss": 1.4}, 1.5)
    assert not script.near({"split": "val", "loss": 1.53}, 1.5)
    assert not script.near({"split": "train", "loss": 1.4}, 1.5)


def test_arms_have_every_combination(monkeypatch: pytest.MonkeyPatch) -> None:
    arms = load_script("measure_transplant", monkeypatch).ARMS.values()
    assert {(init, teacher) for init in ("qkv", "new") for teacher in (True, False)} <= {arm[:2] for arm in arms}
