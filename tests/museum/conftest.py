"""The option `--check NAME`, for scripts/mutate.py: run only these checks on the sound models."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--check`."""
    parser.addoption("--check", action="append", metavar="NAME", help="run only this check on the sound models")
