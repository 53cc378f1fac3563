"""Tests the settings of the model that a run starts from, and of its teacher."""

from __future__ import annotations

from typing import Any

import pytest

from lmzoo import configs
from lmzoo.errors import ConfigError
from lmzoo.runs.origin import Start, Teacher, divided

PLACE = {"path": "runs/llama", "sha256": "0" * 64}


def test_divided_by_the_prefix() -> None:
    start, teacher, others = divided({"start.trained": "new", "teacher.weight": 2.0, "steps": 3, "train.seed": 1})
    assert (start, teacher, others) == ({"trained": "new"}, {"weight": 2.0}, {"steps": 3, "train.seed": 1})


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("teacher.temprature", "teacher.temprature=1 is not a setting; did you mean 'temperature'"),
        ("teacher.path", "teacher.path=1 is not a setting; known"),
        ("start.sha256", "start.sha256=1 is not a setting"),
    ],
)
def test_divided_refuses_unknown_settings(key: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        divided({key: 1})


def test_origins_are_read_as_they_were_written() -> None:
    for origin in (Start(**PLACE, trained="new"), Teacher(**PLACE, temperature=2.0, match_steps=5)):
        assert configs.build(type(origin), configs.to_table(origin)) == origin


@pytest.mark.parametrize(
    ("cls", "settings", "message"),
    [
        (Start, {"sha256": "abc"}, "sha256='abc' must be 64 hexadecimal digits"),
        (Start, {"trained": "old"}, "trained='old'"),
        (Teacher, {"sha256": "g" * 64}, "must be 64 hexadecimal digits"),
        (Teacher, {"temperature": -1.0}, "temperature=-1.0 must be above 0"),
    ],
)
def test_origins_refuse(cls: type[Any], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        configs.build(cls, {**PLACE, **settings})
