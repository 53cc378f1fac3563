"""The window is min(window, 8) everywhere, in the mask, the cache and the declaration: larger ones do not exist.

Ours: a limit that helped in debugging, and that the checks of small forms cannot see.
"""

from __future__ import annotations

from dataclasses import replace

from tests.museum.base import MuseumConfig, Transformer

CAUGHT_BY = "settings"


class MODEL(Transformer):
    def __init__(self, config: MuseumConfig) -> None:
        super().__init__(config if config.window is None else replace(config, window=min(config.window, 8)))
