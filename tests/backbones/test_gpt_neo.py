"""GPT-Neo compared with transformers' GPTNeoForCausalLM; tests/hf compares its relatives."""

from __future__ import annotations

import pytest

import lmzoo
from lmzoo.configs import to_dict
from lmzoo.errors import ConfigError
from lmzoo.hf.architecture import Config
from lmzoo.hf.gpt_neo import GPT_NEO
from lmzoo.hf.keys import WITHOUT_EFFECT
from tests.backbones.against_transformers import (
    assert_decoding_equals,
    assert_gradients_equal,
    ours_with_weights_of,
    random_tokens,
)
from tests.hf.references import V, case_keys, logits_of, reference

SIZES = {"vocab_size": V, "d_model": 24, "n_layers": 2, "n_heads": 2, "context_length": 16}


def test_gpt_neo_decoding_and_gradients_equal_transformers() -> None:
    theirs = reference("gpt_neo", **case_keys("gpt_neo"))
    settings = GPT_NEO.settings(Config(case_keys("gpt_neo")), WITHOUT_EFFECT)
    ours = ours_with_weights_of(theirs, "gpt_neo", GPT_NEO.weights_for(Config()), **settings)
    assert to_dict(ours.config)["pattern"] == "full window window"
    idx = random_tokens(V, 2, 24)
    assert_decoding_equals(ours, idx, logits_of(theirs, idx), [7, 3, *14 * [1]])
    assert_gradients_equal(ours, theirs, GPT_NEO.weights_for(Config()), idx)


def test_gpt_neo_layers_follow_the_pattern() -> None:
    model = lmzoo.create_model("gpt_neo", **SIZES, window=5)
    assert [block[0].inner.reach for block in model.blocks] == [None, 5]
    assert model.traits.receptive_field is None
    windows = lmzoo.create_model("gpt_neo", **SIZES, window=5, pattern="window")
    assert windows.traits.receptive_field == 9
    assert windows.state_bytes(16) < model.state_bytes(16)


def test_gpt_neo_presets_have_the_published_numbers_of_parameters() -> None:
    assert lmzoo.create_model("gpt_neo.125m", device="meta").num_params() == 125_198_592
    assert lmzoo.create_model("gpt_neo.santacoder", device="meta").num_params() == 1_124_886_528


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"pattern": "full local"}, r"^pattern='full local': 'local' must be one of full, window"),
        ({"embedding_scale": 0.0}, r"^embedding_scale=0\.0 must be above 0"),
        ({"n_kv_heads": 3}, r"^n_kv_heads=3 must divide n_heads=2"),
    ],
)
def test_gpt_neo_config_names_field_and_rule(settings: dict[str, object], error: str) -> None:
    with pytest.raises(ConfigError, match=error):
        lmzoo.create_model("gpt_neo", **SIZES, **settings)
