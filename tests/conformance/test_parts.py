"""Numbers of parts that leave weights without use."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from torch import Tensor

from lmzoo.configs import require_divides
from lmzoo.conformance import Fault, subject
from lmzoo.conformance.parts import require_parts_in_use
from lmzoo.layers.linear import Linear
from lmzoo.state import State
from tests.museum.base import CellConfig, Recurrent
from tests.museum.exhibits import query_head_left_out


@dataclass(frozen=True, kw_only=True)
class StrictConfig(query_head_left_out.GroupedConfig):
    def __post_init__(self) -> None:
        super().__post_init__()
        require_divides(self, "n_groups", "n_heads")


class Strict(query_head_left_out.MODEL):
    config_class = StrictConfig


def test_require_parts_in_use_names_the_number_and_the_weights() -> None:
    says = r"n_groups=3 leaves columns of blocks\.0\.attention\.out\.weight without a gradient, and n_groups=4 does not"
    with pytest.raises(Fault, match=says):
        require_parts_in_use(subject(query_head_left_out.MODEL))


def test_require_parts_in_use_takes_a_config_that_refuses_and_sizes_that_fit() -> None:
    require_parts_in_use(subject(Strict))
    require_parts_in_use(subject("mixtral"))  # three experts are as good as four


@dataclass(frozen=True, kw_only=True)
class CopiesConfig(CellConfig):
    n_copies: int = 4


class Padded(Recurrent):
    """The last row of a matrix is padding, whatever the number of copies is."""

    config_class = CopiesConfig
    config: CopiesConfig

    def __init__(self, config: CopiesConfig) -> None:
        super().__init__(config)
        self.padded = Linear(config.d_model, config.d_model + 1, bias=False)

    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        x_BTD, state = super().features(idx_BT, state)
        return x_BTD + self.config.n_copies * self.padded(x_BTD)[..., :-1], state


def test_require_parts_in_use_takes_what_every_number_leaves_without_a_gradient() -> None:
    require_parts_in_use(subject(Padded))
