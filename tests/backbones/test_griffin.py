"""Griffin compared with transformers' RecurrentGemmaForCausalLM with the same weights."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from transformers import RecurrentGemmaConfig, RecurrentGemmaForCausalLM

import lmzoo
from lmzoo.backbones.griffin import MIXERS
from lmzoo.configs import to_dict
from lmzoo.errors import ConfigError
from lmzoo.hf.griffin import weights
from lmzoo.hf.weights import convert
from lmzoo.layers.pattern import pattern
from tests.backbones.against_transformers import (
    TOLERANCE,
    assert_decoding_equals,
    ours_with_weights_of,
    perturb,
    random_tokens,
)

WORDS = pattern("recurrent*2 attention", 5, MIXERS)


def make_pair(d_rnn: int) -> tuple[lmzoo.LanguageModel, RecurrentGemmaForCausalLM]:
    sizes = {"hidden_size": 32, "lru_width": d_rnn, "num_hidden_layers": 5, "intermediate_size": 80, "conv1d_width": 3}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "attention_window_size": 7, "logits_soft_cap": 5.0}
    config = RecurrentGemmaConfig(vocab_size=61, pad_token_id=None, attn_implementation="eager", **sizes, **heads)
    theirs = perturb(RecurrentGemmaForCausalLM(config))
    theirs.model.normalizer = torch.tensor(math.sqrt(32))  # it is stored in bfloat16
    sizes = {"d_model": 32, "d_rnn": d_rnn, "n_layers": 5, "n_heads": 4, "n_kv_heads": 2, "d_ff": 40, "d_conv": 3}
    settings = {"vocab_size": 61, "context_length": 16, "window": 7, "logit_cap": 5.0}
    return ours_with_weights_of(theirs, "griffin", weights(WORDS), **sizes, **settings), theirs


@pytest.mark.parametrize("d_rnn", [32, 48])
def test_griffin_logits_equal_transformers(d_rnn: int) -> None:
    """Beyond the window and the context; forward and decoding in pieces."""
    ours, theirs = make_pair(d_rnn)
    idx = random_tokens(61, 3, 30)
    with torch.no_grad():
        expected = theirs(idx, use_cache=False).logits
    assert expected.std() > 0.5, "the weights must make the logits differ"
    torch.testing.assert_close(ours(idx).logits, expected, atol=TOLERANCE, rtol=0)
    assert_decoding_equals(ours, idx, expected, [11, 1, 3] + [1] * 15)


def test_griffin_gradients_equal_transformers() -> None:
    ours, theirs = make_pair(32)
    idx = random_tokens(61, 2, 20)
    F.cross_entropy(theirs(idx[:, :-1], use_cache=False).logits.flatten(0, 1), idx[:, 1:].flatten()).backward()
    ours(idx[:, :-1], idx[:, 1:]).loss.backward()
    grads = {name: p.grad for name, p in theirs.named_parameters() if p.grad is not None}
    expected = convert(grads, weights(WORDS), to_dict(ours.config))
    for name, parameter in ours.named_parameters():
        want = expected[name]
        torch.testing.assert_close(parameter.grad, want, atol=1e-4 * max(1.0, want.abs().max().item()), rtol=0)


def test_griffin_passes_its_options_to_the_layers() -> None:
    options = {"d_rnn": 48, "d_conv": 3, "window": 9, "n_heads": 2, "pattern": "attention recurrent"}
    model = lmzoo.create_model("griffin", vocab_size=13, d_model=32, n_layers=2, **options)
    (attention, _), (recurrence, _) = model.blocks
    assert (attention.inner.window, attention.inner.n_kv_heads, attention.inner.rope.fraction) == (9, 1, 0.5)
    assert recurrence.inner.conv_weight.shape == (48, 3)
    assert recurrence.inner.gates.shape == (2 * 2, 24, 24)


def test_griffin_embed_scale_multiplies_the_embeddings() -> None:
    plain, scaled = (
        lmzoo.create_model("griffin", vocab_size=13, d_model=32, n_layers=1, embed_scale=scale) for scale in (None, 3.0)
    )
    scaled.load_state_dict(plain.state_dict())
    read = []
    for model in (plain, scaled):
        model.blocks.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
        model(torch.arange(13)[None])
    torch.testing.assert_close(read[1], read[0] * 3 / math.sqrt(32))
    with pytest.raises(ConfigError, match="embed_scale=0"):
        lmzoo.create_model("griffin", vocab_size=13, embed_scale=0.0)


def test_griffin_config_refuses_blocks_that_do_not_fit() -> None:
    with pytest.raises(ConfigError, match="n_heads=4 must divide d_rnn=30"):
        lmzoo.create_model("griffin", vocab_size=13, d_model=32, d_rnn=30)
    with pytest.raises(ConfigError, match="pattern="):
        lmzoo.create_model("griffin", vocab_size=13, pattern="mamba")


def test_griffin_state_has_a_fixed_size_and_is_float32() -> None:
    model = lmzoo.create_model("griffin", vocab_size=13, d_model=32, n_layers=3, window=6)
    recurrence, attention = 3 * 32 + 32, 2 * 6 * 8
    assert model.state_bytes(10) == model.state_bytes(1000) == 4 * (2 * recurrence + attention)
    _, state = model.bfloat16().decode(random_tokens(13, 1, 20), model.init_state(1))
    assert state["layers"].blocks[0][0].h.dtype == torch.float32


def test_griffin_initialization_follows_paper_and_authors() -> None:
    sizes = {"vocab_size": 512, "d_model": 256, "n_layers": 8}
    model = lmzoo.create_model("griffin", **sizes, generator=torch.Generator().manual_seed(0))
    weights = model.state_dict()
    decay_D = torch.exp(-8 * F.softplus(weights["blocks.0.0.inner.decay"].double()))
    assert 0.9 * 0.9999 < decay_D.min() < 0.905
    assert 0.99 < decay_D.max() < 0.999 * 1.0001
    stds = {"0.0.inner.in_proj": 1 / 16, "0.0.inner.out": 1 / 32, "2.0.inner.qkv": 1 / 16, "2.0.inner.out": 1 / 32}
    for name, std in stds.items():
        assert abs(weights[f"blocks.{name}.weight"].std().item() / std - 1) < 0.03, name
    assert abs(weights["blocks.1.0.inner.gates"].std().item() / 64**-0.5 - 1) < 0.03
    assert abs(weights["tokens.weight"].std().item() * 16 - 1) < 0.03


@pytest.mark.parametrize(("preset", "millions", "within"), [("1m", 1, 0.05), ("10m", 10, 0.02)])
def test_griffin_presets_have_the_size_of_their_names(preset: str, millions: float, within: float) -> None:
    n = lmzoo.create_model(f"griffin.{preset}", vocab_size=256, device="meta").num_params()
    assert abs(n / (millions * 1e6) - 1) < within


def test_griffin_recurrentgemma_has_the_published_number_of_parameters() -> None:
    ours = lmzoo.create_model("griffin.recurrentgemma-2b", device="meta")
    with torch.device("meta"):
        theirs = RecurrentGemmaForCausalLM(RecurrentGemmaConfig(num_key_value_heads=1, intermediate_size=15360))
    assert ours.num_params() == theirs.num_parameters()
