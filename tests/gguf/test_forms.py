"""Tests that the names and keys of the forms are those of the package `gguf`."""

from __future__ import annotations

import re
from collections.abc import Iterator

import gguf
import pytest

from lmzoo import registry
from lmzoo.gguf.form import Form
from lmzoo.gguf.forms import FORMS


def constants(group: type) -> Iterator[str]:
    for value in vars(group).values():
        if isinstance(value, str):
            yield value
        elif isinstance(value, type):
            yield from constants(value)


KEYS = {key.replace("{arch}.", "") for key in constants(gguf.Keys)}


@pytest.mark.parametrize("form", FORMS, ids=lambda form: f"{form.family} {form.arch}")
def test_forms_use_names_of_the_library(form: Form) -> None:
    number = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == form.arch)
    known = {gguf.TENSOR_NAMES[tensor].replace("{bid}", "{i}") for tensor in gguf.MODEL_TENSORS[number]}
    assert {re.sub(r"\.(weight|bias)$", "", name) for name in form.tensors} <= known
    assert {*form.keys, form.norm} <= KEYS


@pytest.mark.parametrize("form", FORMS, ids=lambda form: f"{form.family} {form.arch}")
def test_forms_need_settings_that_the_family_has(form: Form) -> None:
    fields = registry.model_class(form.family).config_class.__dataclass_fields__
    assert {*form.needs} <= {*fields}
