"""Leaves out the tests whose marker names something that is not on this machine, and says so in the last lines.

An environment variable for each marker makes a missing thing a failure: `.ci/run` installs Chromium and sets its one.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple

import pytest

from tests import browser, gpu


class Condition(NamedTuple):
    """The condition of the tests with a marker."""

    is_here: Callable[[], bool]
    required: str  # environment variable: set if the tests must run
    missing: str  # message where they are left out


CONDITIONS = {
    "browser": Condition(lambda: browser.find() is not None, browser.REQUIRED, browser.MISSING),
    "gpu": Condition(gpu.is_here, gpu.REQUIRED, gpu.MISSING),
}


def left_out() -> dict[str, str]:
    """Return the markers whose tests are left out, and why."""
    return {
        marker: condition.missing
        for marker, condition in CONDITIONS.items()
        if not condition.is_here() and not os.environ.get(condition.required)
    }


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    without = left_out()
    marked = [item for item in items if any(item.get_closest_marker(marker) for marker in without)]
    if marked:
        items[:] = [item for item in items if item not in marked]
        config.hook.pytest_deselected(items=marked)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for marker, missing in left_out().items():
        terminalreporter.write_line(f"the tests marked `{marker}` were left out: {missing}")
