"""Every registered family passes every check. There is no skip list: exceptions are declared and checked."""

from __future__ import annotations

import pytest

from lmzoo import registry
from lmzoo.conformance import CHECKS, check_model

FAMILIES = list(registry.families())
# test_saving has one process for all families; other checks need a model of the caller.
HERE = [check.name for check in CHECKS if check.name != "save_and_load" and not check.needs_instance]


@pytest.mark.parametrize("family", FAMILIES)
def test_family_passes_all_checks(family: str) -> None:
    report = check_model(family, only=HERE)
    assert [result.name for result in report.results] == HERE
    assert report.passed, str(report)
