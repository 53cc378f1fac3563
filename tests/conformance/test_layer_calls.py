"""Calls of layers that a check repeats."""

from __future__ import annotations

import torch

from lmzoo.conformance import subject
from lmzoo.conformance.layer_calls import calls_of
from lmzoo.layers.attention import KEYS_AND_VALUES


def test_calls_of_can_be_made_again_with_equal_rows_and_gradients() -> None:
    tiny = subject("rwkv7")  # the values of its first layer are carried to the others
    model, idx = tiny.model(), tiny.tokens(2, 7)
    calls, logits_BTV = calls_of(model, idx, "offers")
    assert torch.equal(logits_BTV, model(idx).logits)
    assert [call.where for call in calls] == [name for name, part in model.named_modules() if hasattr(part, "offers")]
    assert not any(module._forward_hooks for module in model.modules())
    for call in calls:
        y_BTD, _ = call.layer(*call.inputs)
        again_BTD = call.again(3)
        torch.testing.assert_close(again_BTD, y_BTD[:1].expand(3, -1, -1))
        assert again_BTD.requires_grad


def test_calls_of_leaves_out_layers_on_other_positions() -> None:
    tiny = subject("hnet")
    calls, _ = calls_of(tiny.model(), tiny.tokens(2, 7), "offers")
    inner = [call.where for call in calls if ".main." in call.where]
    assert not inner
    assert len(calls) == 2


def test_calls_of_keep_the_carried_values_of_their_time() -> None:
    tiny = subject("hybrid")
    model = tiny.model(pattern="window cross window cross", n_layers=4)
    calls, _ = calls_of(model, tiny.tokens(2, 7), "offers")
    keys = [call.inputs[2].carry[KEYS_AND_VALUES][0] for call in calls]
    assert torch.equal(keys[0], keys[1])
    assert not torch.equal(keys[1], keys[2])
