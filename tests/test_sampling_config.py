"""Tests the sampling settings: their rules, their names for type checkers, and the options of `lmzoo sample`."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any, get_type_hints

import click
import pytest

from lmzoo.cli.sample import sample
from lmzoo.errors import ConfigError
from lmzoo.sampling_config import SamplingConfig, SamplingSettings


def test_sampling_settings_are_the_fields_of_the_config() -> None:
    names = get_type_hints(SamplingConfig)
    assert get_type_hints(SamplingSettings) == names
    assert [field.name for field in fields(SamplingConfig)] == list(names)


def test_sampling_config_has_an_option_of_lmzoo_sample_for_each_number() -> None:
    options = {option.name: option for option in sample.params if isinstance(option, click.Option)}
    for field in fields(SamplingConfig):
        if field.name == "logit_bias":
            assert field.name not in options
            continue
        option = options[field.name]
        assert option.help == field.metadata["help"]
        assert option.default == (0.8 if field.name == "temperature" else field.default)
        assert option.type is (click.INT if field.name == "top_k" else click.FLOAT)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": -1}, "temperature=-1 must be 0 "),
        ({"temperature": math.nan}, "temperature=nan must be a finite number"),
        ({"temperature": "hot"}, "temperature='hot' must be a finite number"),
        ({"top_k": 0}, "top_k=0 must be a positive integer"),
        ({"top_k": 2.5}, "top_k=2.5 must be a positive integer"),
        ({"top_p": 0}, r"top_p=0 must be in \(0, 1\]"),
        ({"top_p": 1.1}, r"top_p=1.1 must be in \(0, 1\]"),
        ({"min_p": 2}, r"min_p=2 must be in \(0, 1\]"),
        ({"typical_p": -0.5}, r"typical_p=-0.5 must be in \(0, 1\]"),
        ({"repetition_penalty": 0}, "repetition_penalty=0 must be above 0"),
        ({"presence_penalty": math.inf}, "presence_penalty=inf must be a finite number"),
        ({"temperature": True}, "temperature=True must be a finite number"),
        ({"frequency_penalty": "some"}, "frequency_penalty='some' must be a finite number"),
        ({"top_k": True}, "top_k=True must be a positive integer"),
        ({"top_p": "most"}, "top_p='most' must be a finite number"),
        ({"logit_bias": {-1: 0.0}}, "logit_bias has the key -1"),
        ({"logit_bias": {True: 0.0}}, "logit_bias has the key True"),
        ({"logit_bias": {1: math.inf}}, r"logit_bias\[1\]=inf must be a number"),
        ({"logit_bias": {1: math.nan}}, r"logit_bias\[1\]=nan must be a number"),
    ],
)
def test_sampling_config_refuses_impossible_settings(settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SamplingConfig(**settings)


@pytest.mark.parametrize("name", ["temperature", "repetition_penalty", "frequency_penalty", "top_p"])
@pytest.mark.parametrize("value", [10**100, 10**400, True, "1", float("nan")])
def test_sampling_config_refuses_numbers_that_torch_does_not_take(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"{name}="):
        SamplingConfig(**{name: value})
