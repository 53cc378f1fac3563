"""The setting `dropout` exists and is never used.

layer6ai-labs/TabDPT-inference#4, dimitymiller/cac-openset#1.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.museum.base import CellConfig, Recurrent

CAUGHT_BY = "settings"


@dataclass(frozen=True, kw_only=True)
class DropoutConfig(CellConfig):
    dropout: float = 0.0


class MODEL(Recurrent):
    config_class = DropoutConfig
