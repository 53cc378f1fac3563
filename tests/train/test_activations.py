"""Tests the activation statistics: figures by hand, for every family, without a trace in the model."""

from __future__ import annotations

import math

import pytest
import torch

from lmzoo import registry
from lmzoo.conformance import subject
from lmzoo.layers.context import Context
from lmzoo.layers.stack import blocks_of
from lmzoo.state import tensors
from lmzoo.train.activations import TOKENS, activation_statistics


@pytest.mark.parametrize("family", registry.families())
def test_activation_statistics_of_every_family(family: str) -> None:
    """Each has the figures of what it is built from; model and random state are unchanged."""
    tiny = subject(family)
    model, T = tiny.model(), tiny.context
    tokens = tiny.tokens(1, T)[0].numpy()
    model.train()
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    before = torch.get_rng_state()
    found = activation_statistics(model, tokens)
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())
    wanted = {"largest_logit"} | ({"residual_rms"} if blocks_of(model) else set())
    wanted |= {"router_load"} if any(hasattr(module, "n_experts") for module in model.modules()) else set()
    assert found.keys() - {"state_norm"} == wanted
    assert ("state_norm" in found) == (model.traits.state_growth == "constant" and family not in ("mlp", "ngram"))
    assert len(found.get("residual_rms", [])) in (0, len(blocks_of(model)) + 1) or family == "looped"
    assert [position for position, _ in found.get("state_norm", [])][-1:] in ([], [T])
    figures = [
        found["largest_logit"],
        *found.get("residual_rms", []),
        *(pair[1] for pair in found.get("state_norm", [])),
    ]
    assert all(figure > 0 for figure in figures)
    assert activation_statistics(model, tokens) == found
    model.eval()
    with torch.no_grad():
        largest = model(torch.from_numpy(tokens)[None]).logits.abs().max().item()
    assert found["largest_logit"] == pytest.approx(largest, rel=1e-5)


def test_activation_statistics_residual_rms_is_of_each_block() -> None:
    tiny = subject("llama")
    model, idx_BT = tiny.model(), tiny.tokens(1, tiny.context)
    with torch.no_grad():
        features = [model.tokens(idx_BT)]
        for block in model.blocks:
            ctx = Context(0, tiny.context, model.device, model.dtype)
            features.append(block(features[-1], None, ctx)[0])
    found = activation_statistics(model, idx_BT[0].numpy())["residual_rms"]
    assert found == pytest.approx([math.sqrt(float((x**2).mean())) for x in features], rel=1e-5)
    assert len(set(found)) == len(found)


def test_activation_statistics_state_norm_is_by_position() -> None:
    tiny = subject("gru")
    model, idx_BT = tiny.model(context_length=12), tiny.tokens(1, 20)
    state, norms = model.init_state(1, 12), {}
    for position in range(1, 13):
        _, state = model.decode(idx_BT[:, position - 1 : position], state)
        norms[position] = torch.cat([part.flatten() for part in tensors(state["layers"])]).norm().item()
    found = activation_statistics(model, idx_BT[0].numpy())["state_norm"]
    assert [position for position, _ in found] == [1, 2, 4, 8, 12], "not beyond the context length"
    assert [norm for _, norm in found] == pytest.approx([norms[position] for position, _ in found], rel=1e-4)
    assert "state_norm" not in activation_statistics(model, idx_BT[0].numpy(), decodes=False)


def test_activation_statistics_router_load_is_relative_to_the_even_one() -> None:
    tiny = subject("mixtral")
    model, tokens = tiny.model(), tiny.tokens(1, tiny.context)[0].numpy()
    routers = [module for module in model.modules() if hasattr(module, "n_experts")]
    found = activation_statistics(model, tokens)["router_load"]
    assert len(found) == len(routers)
    assert all(0 <= least <= 1 <= most for least, most in found)
    with torch.no_grad():
        routers[1].router.weight.zero_()  # ties: every token goes to the first experts
    expected = [0.0, pytest.approx(routers[1].n_experts / routers[1].top_k, rel=1e-5)]
    assert activation_statistics(model, tokens)["router_load"] == [found[0], expected]


def test_activation_statistics_reads_few_tokens_and_marks_what_is_not_finite() -> None:
    model = registry.create_model("llama", vocab_size=40, d_model=8, n_layers=1, n_heads=1, context_length=4 * TOKENS)
    seen: list[int] = []
    model.register_forward_pre_hook(lambda _, args: seen.append(args[0].numel()))
    tokens = torch.arange(40).repeat(100).numpy()
    assert activation_statistics(model, tokens)["residual_rms"][1] is not None
    assert seen == [TOKENS]
    with torch.no_grad():
        next(blocks_of(model)[0].parameters()).fill_(math.inf)
    found = activation_statistics(model, tokens)
    assert found["residual_rms"][0] > 0
    assert found["residual_rms"][1] is found["largest_logit"] is None
