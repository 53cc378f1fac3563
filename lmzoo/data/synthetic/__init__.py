"""Texts from sources whose entropy rate is known exactly: the loss that no model can beat (docs/probes.md)."""

from __future__ import annotations

from lmzoo.data.synthetic.registered import SOURCES, entropy_rate, source_text
from lmzoo.data.synthetic.source import EntropyRate, Source

__all__ = ["SOURCES", "EntropyRate", "Source", "entropy_rate", "source_text"]
