"""No more than twelve layers are built, whatever the config says.

Ours: a larger model of a comparison would be the same as a smaller one.
"""

from __future__ import annotations

from dataclasses import replace

from tests.museum.base import CellConfig, Recurrent

CAUGHT_BY = "settings"


class MODEL(Recurrent):
    def __init__(self, config: CellConfig) -> None:
        super().__init__(replace(config, n_layers=min(config.n_layers, 12)))
