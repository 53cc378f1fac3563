"""Every registered family passes every check. There is no skip list: exceptions are declared and checked."""

from __future__ import annotations

from functools import cache

import pytest

from lmzoo import registry
from lmzoo.conformance import CHECKS, Check, Subject, run_check, subject

FAMILIES = list(registry.families())
# test_saving has one process for all families; other checks need a model of the caller.
HERE = [check for check in CHECKS if check.name != "save_and_load" and not check.needs_instance]


@cache
def small(family: str) -> Subject:
    return subject(family)


@pytest.mark.parametrize("check", HERE, ids=lambda check: check.name)
@pytest.mark.parametrize("family", FAMILIES)
def test_family_passes(family: str, check: Check) -> None:
    result = run_check(check, small(family))
    assert result.passed, result.saw
