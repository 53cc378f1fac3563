"""Trains models on probes and reports how often they answer right, see docs/probes.md."""

from __future__ import annotations

from lmzoo.probing.results import CellResult, LevelFacts, Results
from lmzoo.probing.run import probe_models

__all__ = ["CellResult", "LevelFacts", "Results", "probe_models"]
