"""The state is declared constant, as it is with the default window; without a window it grows with every token.

Ours: a declaration must hold for every value of a setting, and None is one that the config offers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from lmzoo.model import Traits
from tests.museum.base import MuseumConfig, Transformer

CAUGHT_BY = "declared_growth"


@dataclass(frozen=True, kw_only=True)
class WindowConfig(MuseumConfig):
    window: int | None = 4


class MODEL(Transformer):
    config_class = WindowConfig

    @property
    def traits(self) -> Traits:
        return replace(super().traits, state_growth="constant")
