"""Numbers of parts that leave weights without use."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from lmzoo.configs import require_divides
from lmzoo.conformance import Fault, subject
from lmzoo.conformance.parts import require_parts_in_use
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
