"""The length of a chunk is a setting that changes the speed and nothing else, and is declared so.

Similar to ooples/AiDotNet#1789 (a chunk size without an effect that was not declared).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tests.museum.base import CellConfig
from tests.museum.chunked import Chunked, ChunkedCell


@dataclass(frozen=True, kw_only=True)
class ChunkConfig(CellConfig):
    without_effect: ClassVar[frozenset[str]] = frozenset({"chunk"})

    chunk: int = 32


class SettingCell(ChunkedCell):
    def __init__(self, config: ChunkConfig) -> None:
        super().__init__(config)
        self.chunk = config.chunk


class MODEL(Chunked):
    config_class = ChunkConfig
    cell_class = SettingCell
