"""ALiBi compared with transformers' BloomForCausalLM, and without positions with GPT2LMHeadModel, same weights."""

from __future__ import annotations

import pytest
import torch
from transformers import BloomConfig, BloomForCausalLM, GPT2Config, GPT2LMHeadModel

import lmzoo
from lmzoo.configs import to_dict
from lmzoo.hf.alibi import WEIGHTS
from lmzoo.hf.gpt2 import WEIGHTS as GPT2
from lmzoo.hf.weights import convert
from tests.backbones.against_transformers import (
    TOLERANCE,
    assert_decoding_equals,
    ours_with_weights_of,
    perturb,
    random_tokens,
)


@pytest.mark.parametrize("n_heads", [4, 6])
def test_alibi_logits_and_gradients_equal_transformers(n_heads: int) -> None:
    """Covers a number of heads that is no power of two, and a sequence longer than the context."""
    d_model = 8 * n_heads
    config = BloomConfig(
        vocab_size=61,
        hidden_size=d_model,
        n_layer=3,
        n_head=n_heads,
        attn_implementation="eager",
    )
    theirs = perturb(BloomForCausalLM(config))
    sizes = {"d_model": d_model, "n_layers": 3, "n_heads": n_heads, "embedding_norm": True}
    ours = ours_with_weights_of(theirs, "alibi", WEIGHTS, vocab_size=61, context_length=16, **sizes)
    idx = random_tokens(61, 3, 40)
    expected = theirs(idx, labels=idx)
    assert expected.logits.std() > 0.5, "the weights must make the logits differ"
    torch.testing.assert_close(ours(idx).logits, expected.logits, atol=TOLERANCE, rtol=0)
    assert_decoding_equals(ours, idx, expected.logits.detach(), [17] + [1] * 23)
    expected.loss.backward()
    ours(idx[:, :-1], idx[:, 1:]).loss.backward()
    gradients = convert({name: p.grad for name, p in theirs.named_parameters()}, WEIGHTS, to_dict(ours.config))
    largest = max(gradient.abs().max().item() for gradient in gradients.values())
    for name, gradient in gradients.items():
        torch.testing.assert_close(ours.get_parameter(name).grad, gradient, atol=TOLERANCE * largest, rtol=0)


def test_alibi_without_positions_equals_gpt2_with_position_embeddings_of_zero() -> None:
    theirs = perturb(GPT2LMHeadModel(GPT2Config(vocab_size=61, n_positions=40, n_embd=32, n_layer=3, n_head=4)))
    with torch.no_grad():
        theirs.transformer.wpe.weight.zero_()
    renamed = ("norm_1", "0.before"), ("norm_2", "1.before"), ("attention", "0.inner"), ("{i}.up", "{i}.1.inner.up")
    weights = {name: source for name, source in GPT2.items() if name != "positions.weight"}
    for old, new in (*renamed, ("{i}.down", "{i}.1.inner.down")):
        weights = {name.replace(old, new): source for name, source in weights.items()}
    sizes = {"vocab_size": 61, "context_length": 16, "d_model": 32, "n_layers": 3, "n_heads": 4, "positions": "none"}
    state = {name: tensor for name, tensor in theirs.state_dict().items() if "wpe" not in name}
    model = lmzoo.create_model("alibi", **sizes)
    model.load_state_dict(convert(state, weights, to_dict(model.config)), strict=True)
    idx = random_tokens(61, 3, 40)
    with torch.no_grad():
        expected = theirs(idx).logits
    torch.testing.assert_close(model.eval()(idx).logits, expected, atol=TOLERANCE, rtol=0)
    assert_decoding_equals(model, idx, expected, [17] + [1] * 23)


def test_alibi_560m_has_the_published_number_of_parameters() -> None:
    assert lmzoo.create_model("alibi.bloom-560m", device="meta").num_params() == 559_214_592
