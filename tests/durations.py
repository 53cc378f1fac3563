"""CPU seconds of the tests by model family, for `scripts/test --durations-by-family`: what one more family costs."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Generator, Iterable
from typing import Any

import pytest

KEY = "cpu seconds"  # of a report's user properties, which a worker process sends to the main one


def family_of(test_id: str, families: Iterable[str]) -> str | None:
    """The family that a test's parameters name, or else its file (`test_mamba.py`); None for a test of no family."""
    path, _, rest = test_id.partition("::")
    parameters = re.search(r"\[(.*)\]", rest)
    words = parameters[1].split("-") if parameters else []
    words.append(path.rpartition("/")[2].removesuffix(".py").removeprefix("test_"))
    return next((word for word in words if word in set(families)), None)


class FamilyDurations:
    """A pytest plugin: measures the CPU seconds of each test, child processes included, and prints sums at the end."""

    def __init__(self, families: Iterable[str]) -> None:
        self.families = list(families)
        self.seconds: Counter[str | None] = Counter()
        self.tests: Counter[str | None] = Counter()
        self._before = 0.0

    def pytest_runtest_logstart(self) -> None:
        """Start measuring."""
        self._before = _cpu_seconds()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self) -> Generator[None, Any, Any]:
        """Note the seconds of a phase (set-up, call, tear-down) in its report."""
        report = yield
        now = _cpu_seconds()
        report.user_properties.append((KEY, now - self._before))
        self._before = now
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add up what the workers have measured."""
        family = family_of(report.nodeid, self.families)
        self.seconds[family] += sum(seconds for key, seconds in report.user_properties if key == KEY)
        self.tests[family] += report.when == "call"

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Print the table."""
        terminalreporter.section("CPU seconds by family")
        for line in self.table():
            terminalreporter.write_line(line)

    def table(self) -> list[str]:
        """A line for each family, the costliest first, then their mean and all other tests."""
        named = [(family, seconds) for family, seconds in self.seconds.most_common() if family is not None]
        lines = [f"{seconds:8.1f}  {family} ({self.tests[family]} tests)" for family, seconds in named]
        mean = sum(seconds for _, seconds in named) / max(1, len(named))
        lines.append(f"{mean:8.1f}  mean of {len(named)} families")
        return [*lines, f"{self.seconds[None]:8.1f}  tests that name no family ({self.tests[None]} tests)"]


def _cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--durations-by-family`."""
    parser.addoption("--durations-by-family", action="store_true", help="print the CPU seconds of each model family")


def pytest_configure(config: pytest.Config) -> None:
    """Measure CPU seconds if they are asked for."""
    if config.getoption("durations_by_family"):
        from lmzoo import registry

        config.pluginmanager.register(FamilyDurations(registry.families()))
