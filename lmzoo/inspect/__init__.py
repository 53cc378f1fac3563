"""Looks inside of models: the influence of tokens, what layers offer, and a page about a text (docs/inspect.md)."""

from __future__ import annotations

from lmzoo.inspect.influence import influence
from lmzoo.inspect.inspection import Inspection, examine
from lmzoo.inspect.record import record
from lmzoo.inspect.recording import NAMES, Recording
from lmzoo.packages import make_callable

__all__ = ["NAMES", "Inspection", "Recording", "examine", "influence", "record"]

make_callable(__name__)
