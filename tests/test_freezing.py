"""Tests that the garbage collector is kept away from the objects of imported modules, and only of these."""

from __future__ import annotations

import gc
import sys

import pytest

from tests import freezing


def test_freeze_modules_has_run_before_this_test() -> None:
    assert gc.get_freeze_count() > 100_000, "torch alone has more objects"
    assert gc.isenabled()


def test_freeze_modules_waits_for_many_new_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    objects = [[number] for number in range(5000)]  # more than other objects that end in the meantime
    before = gc.get_freeze_count()
    monkeypatch.setattr(freezing, "_frozen", len(sys.modules) - freezing.MODULES + 1)
    freezing.freeze_modules()
    assert gc.get_freeze_count() <= before
    monkeypatch.setattr(freezing, "_frozen", len(sys.modules) - freezing.MODULES)
    freezing.freeze_modules()
    assert gc.get_freeze_count() > before + len(objects) / 2
    assert len(sys.modules) == freezing._frozen
