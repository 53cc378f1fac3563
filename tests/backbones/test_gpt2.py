"""GPT-2 compared with transformers' GPT2LMHeadModel with the same weights."""

from __future__ import annotations

import torch
from transformers import GPT2Config, GPT2LMHeadModel

import lmzoo
from lmzoo.hf.gpt2 import WEIGHTS
from tests.backbones.against_transformers import (
    TOLERANCE,
    assert_gradients_equal,
    ours_with_weights_of,
    perturb,
    random_tokens,
)


def test_gpt2_logits_loss_and_gradients_equal_transformers() -> None:
    theirs = perturb(GPT2LMHeadModel(GPT2Config(vocab_size=61, n_positions=24, n_embd=32, n_layer=3, n_head=4)))
    sizes = {"vocab_size": 61, "context_length": 24, "d_model": 32, "n_layers": 3, "n_heads": 4}
    ours = ours_with_weights_of(theirs, "gpt2", WEIGHTS, **sizes)
    idx = random_tokens(61, 3, 24)
    with torch.no_grad():
        expected = theirs(idx, labels=idx)
        logits, loss = ours(idx[:, :-1], idx[:, 1:])
    assert expected.logits.std() > 0.5, "the weights must make the logits differ"
    torch.testing.assert_close(logits, expected.logits[:, :-1], atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(loss, expected.loss, atol=TOLERANCE, rtol=0)
    assert_gradients_equal(ours, theirs, WEIGHTS, idx)


def test_gpt2_initialization_follows_the_paper() -> None:
    model = lmzoo.create_model(
        "gpt2", vocab_size=512, d_model=256, n_layers=8, generator=torch.Generator().manual_seed(0)
    )
    spread = {name: parameter.std().item() for name, parameter in model.named_parameters() if parameter.ndim == 2}
    for name, std in spread.items():
        residual = name.endswith(("out.weight", "down.weight"))
        assert abs(std / (0.02 / 4 if residual else 0.02) - 1) < 0.03, (name, std)  # 1/sqrt(2 * 8) = 1/4
    assert all((p == 0).all() for name, p in model.named_parameters() if name.endswith("bias"))


def test_gpt2_124m_has_the_published_number_of_parameters() -> None:
    assert lmzoo.create_model("gpt2.124m", device="meta").num_params() == 124_439_808
