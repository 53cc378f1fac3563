"""Looks inside of models: the influence of tokens on predictions, and what layers offer (docs/inspect.md)."""

from __future__ import annotations

from lmzoo.inspect.influence import influence
from lmzoo.inspect.record import record
from lmzoo.inspect.recording import NAMES, Recording

__all__ = ["NAMES", "Recording", "influence", "record"]
