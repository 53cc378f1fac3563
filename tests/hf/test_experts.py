"""Tests of the keys for layers with experts."""

from __future__ import annotations

import pytest

from lmzoo.errors import CheckpointError
from lmzoo.hf.architecture import Config
from lmzoo.hf.experts import DENSE_FIRST, FIRST_ONE_DENSE, groups, shared_width


def test_groups_have_defaults_and_the_sum_of_two_affinities() -> None:
    keys = groups(8, 4, 6)
    assert keys.settings(Config()) == {"n_groups": 8, "top_groups": 4, "top_k": 6, "group_best": 2}
    assert keys.settings(Config(n_group=4)) == {"n_groups": 4, "top_groups": 4, "top_k": 6}, "no group is left out"
    ours = {"n_groups": 4, "top_groups": 2, "top_k": 3}
    assert keys.inverse_of(ours) == {"n_group": 4, "topk_group": 2, "num_experts_per_tok": 3}
    other = groups(1, 1, 2, ("g", "t", "k"), settings=("expert_groups", "top", "chosen"))
    assert other.settings(Config(k=5)) == {"expert_groups": 1, "top": 1, "chosen": 5}


def test_shared_width_is_that_of_whole_experts() -> None:
    keys = shared_width("shared", 1024, one=512)
    assert keys.settings(Config()) == {"n_shared": 2}
    assert keys.settings(Config(shared=36, moe_intermediate_size=12)) == {"n_shared": 3}
    assert keys.inverse_of({"n_shared": 3, "d_expert": 12}) == {"shared": 36}
    for shared in (0, 30):
        with pytest.raises(CheckpointError, match=f"^shared={shared} must be a multiple of moe_intermediate_size=12$"):
            keys.settings(Config(shared=shared, moe_intermediate_size=12))


def test_dense_layers_come_first() -> None:
    config = Config(num_hidden_layers=3, first_k_dense_replace=2)
    assert DENSE_FIRST.settings(config) == {"n_dense": 2}
    assert FIRST_ONE_DENSE.settings(config) == {"n_dense": 1}
    words = ["dense", "dense", "sparse"]
    assert FIRST_ONE_DENSE.settings(Config(config, mlp_layer_types=words)) == {"n_dense": 2}
    assert DENSE_FIRST.inverse_of({"n_dense": 2, "n_layers": 3}) == {"mlp_layer_types": words}
    with pytest.raises(CheckpointError, match=r"^mlp_layer_types=.+ must have all dense layers before the sparse"):
        DENSE_FIRST.settings(Config(config, mlp_layer_types=words[::-1]))
