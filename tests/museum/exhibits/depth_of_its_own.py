"""The setting `n_layers` is ignored: there are always two layers.

apax-hub/apax#24 (the number of layers is assumed to be 2).
"""

from __future__ import annotations

from dataclasses import replace

from tests.museum.base import CellConfig, Recurrent

CAUGHT_BY = "settings"


class MODEL(Recurrent):
    def __init__(self, config: CellConfig) -> None:
        super().__init__(replace(config, n_layers=2))
        self.config = config
