"""Fixtures shared by the tests of runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from lmzoo.runs.run import RunSpec

MakeSpec = Callable[..., RunSpec]
DERIVED = ("min_learning_rate", "warmup_steps", "eval_every", "checkpoint_every")


@pytest.fixture
def derived_spec(small_spec: MakeSpec) -> MakeSpec:
    """A spec in which four training settings are derived from the others."""

    def make(**settings: Any) -> RunSpec:
        spec = small_spec(**{"steps": 20, "learning_rate": 0.01} | settings)
        return dataclasses.replace(
            spec, train=dataclasses.replace(spec.train, **{name: None for name in DERIVED if name not in settings})
        )

    return make
