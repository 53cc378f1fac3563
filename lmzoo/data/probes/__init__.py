"""Probes: small tasks, each of which needs one skill, with generators that match their papers (docs/probes.md)."""

from __future__ import annotations

from lmzoo.data.probes.catalog import DIFFICULTIES, PROBES, find_level, find_probe
from lmzoo.data.probes.task import Level, Probe, Task

__all__ = ["DIFFICULTIES", "PROBES", "Level", "Probe", "Task", "find_level", "find_probe"]
