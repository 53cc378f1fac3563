"""Tests of the names and keys of latent attention."""

from __future__ import annotations

import math

import pytest

from lmzoo.errors import CheckpointError
from lmzoo.hf.architecture import Config
from lmzoo.hf.latent import LOW_RANK, SHARED, full_heads, latent_attention, names_of
from lmzoo.hf.layouts import Neighbors
from lmzoo.hf.weights import Weights
from lmzoo.layers.rope_scaling import parse_rope_scaling

Q, LATENT = "blocks.{i}.0.inner.q.weight", "model.layers.{i}.self_attn."
WEIGHTS: Weights = {**SHARED, **LOW_RANK}


def test_names_of_queries_depend_on_their_rank() -> None:
    low = Neighbors(f"{LATENT}q_b_proj.weight", "rope_dim", "n_heads")
    direct = Neighbors(f"{LATENT}q_proj.weight", "rope_dim", "n_heads")
    assert names_of(WEIGHTS)(Config())[Q] == low
    assert names_of(WEIGHTS)(Config(q_lora_rank=None))[Q] == direct
    assert names_of(WEIGHTS, rank=None)(Config())[Q] == direct
    assert names_of(WEIGHTS, rank=None)(Config(q_lora_rank=3))[Q] == low


@pytest.mark.parametrize(("config", "halves"), [({"rope_interleave": False}, False), ({}, True)])
def test_names_of_halves_move_no_rows(config: dict[str, bool], halves: bool) -> None:
    found = names_of(WEIGHTS, halves=halves)(Config(config))
    assert found[Q] == f"{LATENT}q_b_proj.weight"
    assert not any(isinstance(source, Neighbors) for source in found.values())


def test_full_heads_have_keys_and_values_of_their_own() -> None:
    assert full_heads().settings(Config(num_attention_heads=4)) == {"n_heads": 4}
    assert full_heads(4, kv_heads=4).settings(Config()) == {"n_heads": 4}
    assert full_heads(kv_heads=8).settings(Config(num_attention_heads=4, num_key_value_heads=None)) == {"n_heads": 4}
    assert full_heads().inverse_of({"n_heads": 4}) == {"num_attention_heads": 4, "num_key_value_heads": 4}
    for given in ({"num_key_value_heads": 8}, {}):
        with pytest.raises(CheckpointError, match=r"^num_key_value_heads=8 must be num_attention_heads=4$"):
            full_heads(kv_heads=8).settings(Config(num_attention_heads=4, **given))


def test_latent_attention_is_sharpened_by_yarn() -> None:
    yarn = {"rope_type": "yarn", "factor": 4.0, "mscale_all_dim": 0.5, "original_max_position_embeddings": 8}
    found = latent_attention().settings(Config(num_attention_heads=4, qk_rope_head_dim=6, rope_parameters=yarn))
    assert found["sharpness"] == (0.1 * 0.5 * math.log(4.0) + 1) ** 2
    ours = {**found, "rope_scaling": parse_rope_scaling(found["rope_scaling"])}
    written = latent_attention().inverse_of(ours)
    assert math.isclose(written["rope_scaling"]["mscale_all_dim"], 0.5)
