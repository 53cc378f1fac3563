"""Sizes of the forms of a model: depth, and sizes that the config's rules allow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

import lmzoo
from lmzoo.configs import require
from lmzoo.conformance.sizes import LARGE, TINY, sized_config
from lmzoo.state import State
from tests.museum.base import Cell, CellConfig, Recurrent


@dataclass(frozen=True, kw_only=True)
class PatternConfig(CellConfig):
    n_layers: int = 9
    pattern: str = "rra"
    global_every: int | None = None
    checked: ClassVar[tuple[Mapping[str, Any], ...]] = ({"pattern": "rrrra"}, {"pattern": "r", "d_model": 8})

    def __post_init__(self) -> None:
        super().__post_init__()
        require(set(self.pattern) <= {"r", "a"}, f"pattern={self.pattern!r} must be made of 'r' and 'a'")


class AveragingCell(Cell):
    def forward(self, x_BTD: Tensor, state: State) -> tuple[Tensor, State]:
        y_BTD, state = super().forward(x_BTD, state)
        return y_BTD + x_BTD.mean(1, keepdim=True), state


class Pattern(Recurrent):
    config_class = PatternConfig
    config: PatternConfig

    def __init__(self, config: PatternConfig) -> None:
        super().__init__(config)
        words = config.pattern
        kinds = {"r": Cell, "a": AveragingCell}
        self.cells = nn.ModuleList(kinds[words[i % len(words)]](config) for i in range(config.n_layers))
        for i, cell in enumerate(self.cells):
            cell.layer = i
            cell.window = 4 if config.global_every and (i + 1) % config.global_every else None


@pytest.mark.parametrize(
    ("settings", "n_layers"),
    [
        ({}, 3),
        ({"pattern": "rrrrrrra"}, 8),
        ({"pattern": "r"}, 2),
        ({"pattern": "r", "global_every": 6}, 6),  # a switch, None or a number, is a kind
        ({"pattern": "rra", "n_layers": 2}, 2),
        ({"n_layers": 1}, 1),
    ],
)
def test_sized_config_keeps_every_kind_of_block(settings: dict[str, Any], n_layers: int) -> None:
    config = sized_config(Pattern, settings, TINY)
    assert config.n_layers == n_layers  # type: ignore[attr-defined]


class Deeper(Pattern):
    """A model whose shapes depend on the depth, so that no other depth has the same kinds of block."""

    def __init__(self, config: PatternConfig) -> None:
        super().__init__(config)
        for cell in self.cells:
            cell.depths = nn.Parameter(torch.zeros(config.n_layers))


def test_sized_config_keeps_the_depth_where_no_other_has_the_same_kinds() -> None:
    assert sized_config(Deeper, {"n_layers": 5}, TINY).n_layers == 5  # type: ignore[attr-defined]


def test_sized_config_sets_the_large_sizes_that_the_config_allows() -> None:
    config: Any = sized_config(lmzoo.registry.model_class("llama"), {"d_model": 24, "n_heads": 2}, LARGE)
    assert (config.d_model, config.n_heads, config.n_kv_heads, config.n_layers) == (64, 4, 2, 4)
    assert (config.vocab_size, config.context_length, config.window) == (307, 300, None)
    shallow: Any = sized_config(Pattern, {"n_layers": 1, "pattern": "r"}, LARGE)
    assert shallow.n_layers == 4


def test_sized_config_leaves_the_settings_unchanged() -> None:
    settings = {"n_layers": 5, "d_model": 64}
    config: Any = sized_config(Pattern, settings, TINY)
    assert (config.n_layers, config.d_model) == (3, 32)
    assert settings == {"n_layers": 5, "d_model": 64}
