"""Tests recording: every family, by the names of the vocabulary, without a trace in the model or its results."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import lmzoo
from lmzoo import registry
from lmzoo.conformance import subject
from lmzoo.decoder import Decoder, DecoderConfig
from lmzoo.errors import InputError
from lmzoo.inspect.record import record
from lmzoo.inspect.recording import NAMES, Recording, block_of, kind_of
from lmzoo.layers.context import Context
from lmzoo.layers.gru import GRU
from lmzoo.layers.layer import Layer
from lmzoo.layers.offers import VOCABULARY
from lmzoo.layers.stack import blocks_of, state_growth
from lmzoo.model import LanguageModel
from lmzoo.state import tensors

# Families in which no layer has a gate, attention weights or a router.
WITHOUT_OFFERS = {"bigram", "hyena", "mlp", "ngram", "rnn", "s4d"}


@pytest.mark.parametrize("family", registry.families())
def test_record_of_every_family(family: str) -> None:
    tiny = subject(family)
    model, idx = tiny.model(), tiny.tokens(2, tiny.context)
    with torch.no_grad():
        before = model(idx).logits
    model.train()
    random = torch.get_rng_state()
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = record(model, idx)
    assert torch.equal(torch.get_rng_state(), random)
    assert model.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())
    with torch.no_grad():
        assert torch.equal(model.eval()(idx).logits, before)
    for name, value in found.items():
        assert kind_of(name) in NAMES, name
        assert value.shape[:2] == idx.shape, name
        assert value.isfinite().all(), name
        assert not value.requires_grad
    assert bool({*map(kind_of, found)} & {*VOCABULARY}) == (family not in WITHOUT_OFFERS)
    blocks = range(len(blocks_of(model)))
    assert {block_of(name) for name in found} == {*blocks}
    assert {block_of(name) for name in found if kind_of(name) == "features.rms"} == {*blocks}


def test_record_names_are_of_blocks_and_numbered_within_them() -> None:
    tiny = subject("looped")
    found = record(tiny.model(), tiny.tokens(1, 5))
    rounds = [name for name in found if name.startswith("blocks.0.attention.weights")]
    assert rounds == ["blocks.0.attention.weights", "blocks.0.attention.weights.2", "blocks.0.attention.weights.3"]
    assert [kind_of(name) for name in rounds] == ["attention.weights"] * 3
    assert not torch.equal(found[rounds[0]], found[rounds[1]])


def test_record_follows_a_layer_that_several_blocks_share() -> None:
    tiny = subject("hybrid")
    model = tiny.model(pattern="shared mamba shared", n_layers=3)
    found = record(model, tiny.tokens(1, 5))
    names = [name for name in found if kind_of(name) == "attention.weights"]
    assert names == ["blocks.0.attention.weights", "blocks.2.attention.weights"]
    assert not torch.equal(*(found[name] for name in names))


class Outside(Decoder):
    """Blocks that are one layer each, the second without a state, and a layer behind the blocks."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__(config)
        self.behind = GRU(config.d_model)

    def block(self, config: DecoderConfig, layer: int) -> nn.Module:
        return [GRU(config.d_model), Shift()][layer]

    def features(self, idx_BT: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        x_BTD, state = super().features(idx_BT, state)
        ctx = Context(0, idx_BT.shape[1], idx_BT.device, self.dtype)
        return self.behind(x_BTD, None, ctx)[0], state


class Shift(Layer):
    def forward(self, x_BTD: Tensor) -> Tensor:
        return nn.functional.pad(x_BTD, (0, 0, 1, 0))[:, :-1]


def test_record_of_blocks_that_are_layers_and_of_layers_that_are_in_no_block() -> None:
    model = Outside(DecoderConfig(vocab_size=7, d_model=4, n_layers=2))
    found = record(model, torch.tensor([[1, 2, 3]]))
    gates = ("gates.decay", "gates.write", "gates.reset")
    expected = {"blocks.0.features.rms", "blocks.1.features.rms", *gates, *(f"blocks.0.{gate}" for gate in gates)}
    assert {*found} == expected, "no norms of states: the model decodes by reading all tokens again"
    assert block_of("gates.decay") is None


def test_record_has_no_norm_of_a_state_that_grows() -> None:
    tiny = subject("path_attention")
    kinds = {kind_of(name) for name in record(tiny.model(), tiny.tokens(1, 5))}
    assert kinds == {"attention.weights", "features.rms"}


def test_record_leaves_out_layers_that_run_on_chunks() -> None:
    tiny = subject("hnet")
    model = tiny.model()
    found = record(model, tiny.tokens(2, tiny.context))
    inside = [block_of(name) for name in found if kind_of(name) == "chunks.start"]
    assert len(inside) == 1
    assert not [name for name in found if block_of(name) == inside[0] and kind_of(name).startswith("gates.")]


def test_record_has_the_values_of_a_forward_pass() -> None:
    tiny = subject("llama")
    model, idx = tiny.model(), tiny.tokens(2, 6)
    found = record(model, idx)
    ctx = Context(0, 6, model.device, model.dtype)
    with torch.no_grad():
        x_BTD = model.tokens(idx)
        for number, block in enumerate(model.blocks):
            mixer = block[0]
            weights = mixer.inner.offers(mixer.before(x_BTD), ctx)["attention.weights"]
            assert torch.equal(found[f"blocks.{number}.attention.weights"], weights)
            x_BTD, _ = block(x_BTD, None, ctx)
            rms_BT = x_BTD.square().mean(dim=-1).sqrt()
            torch.testing.assert_close(found[f"blocks.{number}.features.rms"], rms_BT)


@pytest.mark.parametrize("family", ["gru", "hybrid", "mamba2"])
def test_record_state_norms_are_of_each_block_after_each_token(family: str) -> None:
    tiny = subject(family)
    model, idx = tiny.model(), tiny.tokens(2, 5)
    found = {name: value for name, value in record(model, idx).items() if kind_of(name) == "state.norm"}
    state = model.init_state(2, 5)
    expected: dict[str, list[Tensor]] = {name: [] for name in found}
    for t in range(5):
        _, state = model.decode(idx[:, t : t + 1], state)
        for number, block in enumerate(state["layers"].blocks):
            if (name := f"blocks.{number}.state.norm") in found:
                parts = torch.cat([part.flatten(1) for part in tensors(block)], dim=1)
                expected[name].append(parts.norm(dim=1))
    growths = [state_growth(block) for block in blocks_of(model)]
    assert len(found) == growths.count("constant") > 0
    for name, value in found.items():
        torch.testing.assert_close(value, torch.stack(expected[name], dim=1))


def test_record_reduces_each_value_when_it_is_offered() -> None:
    tiny = subject("mamba")
    model, idx = tiny.model(), tiny.tokens(1, 5)
    whole, seen = record(model, idx), list[str]()

    def reduce(name: str, value: Tensor) -> Tensor:
        seen.append(name)
        return value.flatten(2).mean(dim=2) if value.ndim > 2 else value

    found = record(model, idx, reduce=reduce)
    assert sorted(seen) == sorted(found) == sorted(whole)
    for name, value in found.items():
        assert torch.equal(value, whole[name].flatten(2).mean(dim=2) if whole[name].ndim > 2 else whole[name])


def test_record_refuses_a_name_outside_of_the_vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = subject("gpt2")
    model = tiny.model()
    attention = next(module for module in model.modules() if hasattr(module, "offers"))
    monkeypatch.setattr(type(attention), "offers", lambda *_: {"attention.wieghts": torch.zeros(1, 5)})
    with pytest.raises(AssertionError, match=r"offers 'attention\.wieghts', which is not in the vocabulary"):
        record(model, tiny.tokens(1, 5))
    assert not any(module._forward_hooks for module in model.modules())


def test_record_of_no_rows() -> None:
    tiny = subject("gru")
    model: LanguageModel = tiny.model()
    assert isinstance(found := record(model, tiny.tokens(1, 5)[:0]), Recording)
    assert len(found) == 0


def test_record_is_the_function_of_the_package() -> None:
    assert sys.modules["lmzoo.inspect"].record is record


@pytest.mark.parametrize("idx", [[[1]], 3, torch.tensor(1), torch.tensor([[99]])])
def test_record_refuses_what_is_no_tokens(idx: Any) -> None:
    with pytest.raises(InputError, match=r"^idx "):
        record(lmzoo.create_model("bigram", vocab_size=11), idx)
