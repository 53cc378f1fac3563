"""Zamba 2; tests/hf/test_load.py compares the logits of more settings with transformers' Zamba2ForCausalLM."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import Zamba2Config, Zamba2ForCausalLM

import lmzoo
from lmzoo.errors import ConfigError
from lmzoo.hf.architecture import Config
from lmzoo.hf.zamba2 import ZAMBA2
from lmzoo.layers.shared_block import SharedBlock
from tests.backbones.against_transformers import (
    TOLERANCE,
    assert_decoding_equals,
    assert_gradients_equal,
    random_tokens,
)
from tests.hf.references import case_keys, logits_of, reference, saved

SIZES = {"vocab_size": 13, "d_model": 32}


def shared_blocks(model: lmzoo.LanguageModel) -> list[SharedBlock]:
    return [module for module in model.modules() if isinstance(module, SharedBlock)]


@pytest.mark.parametrize("variant", ["", "adapted, rotated"])
def test_zamba2_decoding_and_gradients_equal_transformers(variant: str, tmp_path: Path) -> None:
    theirs = reference("zamba2", **case_keys("zamba2", variant))
    ours = lmzoo.load_model(saved(theirs, tmp_path))
    idx = random_tokens(61, 2, 24)
    expected = logits_of(theirs, idx)
    torch.testing.assert_close(ours(idx).logits, expected, atol=TOLERANCE, rtol=0)
    assert_decoding_equals(ours, idx, expected, [11, 1, 3, *[1] * 9])
    own = dict(ours.named_parameters())  # weights of a shared block have one name, that of its first use
    every = ZAMBA2.weights_for(Config(theirs.config.to_dict()))
    weights = {name: source for name, source in every.items() if "{i}" in name or name in own}
    assert_gradients_equal(ours, theirs, weights, idx[:, :16])


def test_zamba2_uses_its_shared_blocks_in_turn() -> None:
    """Each use has low-rank maps and an output map of its own."""
    options = {"pattern": "shared", "n_layers": 5, "n_shared": 2, "adapts_attention": True}
    uses = shared_blocks(lmzoo.create_model("zamba2", **SIZES, **options))
    for part in ("norm", "mlp_norm", "mlp.down", "mlp.up.base", "attention.out", "attention.qkv.base"):
        modules = [use.get_submodule(part) for use in uses]
        assert [modules.index(module) for module in modules] == [0, 1, 0, 1, 0], part
    for part in ("out", "mlp.up", "attention.qkv"):
        assert len({id(use.get_submodule(part)) for use in uses}) == 5, part


def test_zamba2_feeds_mamba_and_not_the_stream() -> None:
    """Without the output of Mamba-2, the layer passes the features on as they are."""
    model = lmzoo.create_model("zamba2", **SIZES, pattern="shared", n_layers=1).double()
    _, _, mamba = model.blocks[0].inner
    idx = random_tokens(13, 1, 7)
    before = model(idx).logits
    with torch.no_grad():
        shared_blocks(model)[0].out.weight.mul_(50)
        assert not torch.allclose(model(idx).logits, before, atol=1e-3)
        mamba.out_proj.weight.zero_()
        expected = model.head(model.norm(model.tokens(idx)))
    torch.testing.assert_close(model(idx).logits, expected)


def test_zamba2_small_has_the_number_of_parameters_of_the_published_configuration() -> None:
    with torch.device("meta"):  # the defaults are those of Zamba2-2.7B, but for these two
        theirs = Zamba2ForCausalLM(Zamba2Config(num_mem_blocks=2, n_mamba_heads=80))
    model = lmzoo.create_model("zamba2.small", device="meta")
    assert model.num_params() == theirs.num_parameters() == 2_662_214_560
    fed = [i for i, block in enumerate(model.blocks) if any(isinstance(part, SharedBlock) for part in block.modules())]
    assert fed == theirs.config.hybrid_layer_ids


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"pattern": "mamba2 attention"}, "pattern='mamba2 attention'"),
        ({"n_heads": 3}, "n_heads=3 must divide 2 d_model = 64"),
        ({"n_heads": 64, "rotates": True}, "n_heads=64 gives heads of width 1, which must be even"),
        ({"n_kv_heads": 2, "adapts_attention": True}, "n_kv_heads=2 must be n_heads=4, since the attention is adapted"),
        ({"ssm_heads": 5}, r"ssm_heads=5 must divide expand \* d_model = 64"),
        ({"ssm_groups": 3}, "ssm_groups=3 must divide ssm_heads=8"),
        ({"n_shared": 0}, "n_shared=0 must be a positive integer"),
    ],
)
def test_zamba2_config_names_field_and_rule(settings: dict[str, object], error: str) -> None:
    with pytest.raises(ConfigError, match=error):
        lmzoo.create_model("zamba2", **SIZES, **settings)
