"""Tests the operation: what is replaced, what is refused, and that nothing else changes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import lmzoo
from lmzoo.errors import ConfigError, InputError, LmzooError
from lmzoo.layers.stack import blocks_of
from lmzoo.storage.models import tensors_of
from lmzoo.transplant.operation import transplant
from lmzoo.transplant.slots import Slot, slots_of
from tests.transplant.models import tokens, trained

LLAMA: dict[str, Any] = {"n_kv_heads": 2, "qk_norm": True, "attention_bias": "all"}


def mixers(model: lmzoo.LanguageModel) -> list[str]:
    return [type(slot.mixer).__name__ for slot in slots_of(model) if isinstance(slot, Slot)]


@pytest.mark.parametrize(
    ("family", "settings", "layers"),
    [
        ("llama", LLAMA, [1, 3]),
        ("llama", {"gate": True, "sinks": True, "window": 5}, [0, 2]),
        ("gemma3", {}, [1, 2]),  # local layers, as the first
        ("gpt_neox", {}, [1, 3]),
        ("mamba", {}, [3]),
    ],
)
def test_transplant_of_the_same_mixer_gives_the_same_logits(
    family: str, settings: dict[str, Any], layers: list[int]
) -> None:
    source = trained(family, **settings)
    found = transplant(source, layers=layers, to=family)
    assert found.new == 0
    assert all(each.lost == () for each in found.replaced)
    assert torch.equal(found.model(tokens()).logits, source(tokens()).logits)


@pytest.mark.parametrize("init", ["qkv", "new"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "griffin", "hyper", "olmo2", "mixtral"])
def test_transplant_changes_nothing_outside_the_mixers(family: str, init: Any) -> None:
    source = trained(family)
    before = {name: tensor.clone() for name, tensor in tensors_of(source).items()}
    found = transplant(source, layers=[3, 1], to="gated_deltanet", init=init)
    assert all(torch.equal(before[name], tensor) for name, tensor in tensors_of(source).items())
    new = {id(p) for part in found.model.new_parts() for p in part.parameters()}
    kept = {name: tensor for name, tensor in tensors_of(found.model).items() if id(tensor) not in new}
    assert all(torch.equal(tensor, before[name]) for name, tensor in kept.items())
    assert found.kept == sum(tensor.numel() for tensor in kept.values())
    assert found.kept + found.taken + found.new == found.model.num_params()
    assert [each.layer for each in found.replaced] == [1, 3]
    assert mixers(found.model)[1] == mixers(found.model)[3] == "GatedDelta"
    assert mixers(found.model)[0::2] == mixers(source)[0::2]
    shared = {p.data_ptr() for p in source.parameters()} & {p.data_ptr() for p in found.model.parameters()}
    assert not shared
    assert not found.model.training
    assert torch.isfinite(found.model(tokens()).logits).all()


def test_transplant_reports_what_is_taken_and_lost() -> None:
    found = transplant(trained(**LLAMA), layers=[2], to="gated_deltanet")
    (each,) = found.replaced
    assert (each.layer, each.old, each.new) == (2, "Attention", "GatedDelta")
    assert each.taken == ("q", "k", "v", "out")
    assert each.lost == ("k_norm.weight", "q_norm.weight", *(f"bias of {name}" for name in ("q", "k", "v", "out")))
    assert found.taken == 4 * 32 * 32
    summary = found.to_dict()
    assert summary["model"] == "llama-transplant"
    assert summary["parameters"] == summary["kept"] + summary["taken"] + summary["new"]
    bare = transplant(trained(**LLAMA), layers=[2], to="gated_deltanet", init="new")
    assert (bare.taken, bare.new, bare.replaced[0].taken) == (0, found.taken + found.new, ())


def test_transplant_is_reproducible_by_its_seed() -> None:
    source = trained()
    models = [transplant(source, layers=[0], to="gla", init="new", seed=seed).model for seed in (1, 1, 2)]
    first, same, other = (model.state_dict() for model in models)
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_transplant_keeps_the_dtype_of_the_source() -> None:
    source = trained().to(torch.bfloat16)
    model = transplant(source, layers=[1], to="gated_deltanet").model
    dtypes = {name: p.dtype for name, p in model.named_parameters()}
    wide = {name for name, dtype in dtypes.items() if dtype == torch.float32}
    assert wide == {"blocks.1.0.inner.A_log", "blocks.1.0.inner.dt_bias"}  # decays close to one do not survive 16 bits
    assert set(dtypes.values()) == {torch.bfloat16, torch.float32}


def test_transplant_again_keeps_the_first_one() -> None:
    source = trained()
    once = transplant(source, layers=[1], to="gla", settings={"gla.gate_rank": 4}).model
    twice = transplant(once, layers=[3], to="mamba", settings={"mamba.d_state": 4}).model
    assert mixers(twice) == ["Attention", "GLA", "Attention", "Mamba"]
    assert twice.config.mixer_settings == ("gla.gate_rank=4", "mamba.d_state=4")
    after = twice.state_dict()
    kept = {name: tensor for name, tensor in once.state_dict().items() if not name.startswith("blocks.3.0.inner")}
    assert all(torch.equal(after[name], tensor) for name, tensor in kept.items())
    assert transplant(twice, layers=[0], to="gla").model.config.mixer_settings == twice.config.mixer_settings
    assert transplant(twice, layers=[1], to="fox").model.config.mixer_settings == ("mamba.d_state=4",)
    with pytest.raises(ConfigError, match=r"gla\.gate_rank=8: other layers have mixers of gla with other settings"):
        transplant(twice, layers=[0], to="gla", settings={"gla.gate_rank": 8})


def test_transplant_by_settings_alone() -> None:
    source = trained(context_length=16)
    found = transplant(source, settings={"window": 3, "context_length": 24})
    assert (found.model.family, found.model.config.window, found.model.config.context_length) == ("llama", 3, 24)
    assert (found.kept, found.taken, found.new) == (source.num_params(), 0, 0)
    assert torch.equal(found.model(tokens(3)).logits, source(tokens(3)).logits)
    assert not torch.equal(found.model(tokens(6)).logits, source(tokens(6)).logits)
    both = transplant(source, layers=[0], to="llama", settings={"window": 9, "llama.window": 3}).model
    assert [slot.mixer.window for slot in slots_of(both)] == [3, 9, 9, 9]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "nothing to change: give layers"),
        ({"layers": [1]}, "layers and to belong together"),
        ({"to": "gla"}, "layers and to belong together"),
        ({"layers": [4], "to": "gla"}, r"layers: 4 must be in \[0, 3\]: llama has 4 layers"),
        ({"layers": [-1], "to": "gla"}, r"layers: -1 must be in \[0, 3\]"),
        ({"layers": [1, 1], "to": "gla"}, "layers: 1 is given twice"),
        ({"layers": [1], "to": "galaxy"}, "model 'galaxy' is unknown"),
        ({"layers": 3, "to": "gla"}, r"layers=3 must be a list of numbers, such as \[1, 3\]"),
        ({"layers": [1], "to": {"a": 1}}, r"to=\{'a': 1\} must be the name of a family"),
        ({"layers": [1], "to": "gpt2"}, "the mixer of gpt2 cannot be transplanted: its model has no decoder frame"),
        ({"layers": [1], "to": "gla", "init": "random"}, "init='random' must be one of qkv, new"),
        ({"layers": [1], "to": "gla", "seed": -1}, r"seed=-1 must be in \[0, 2\^63\)"),
        ({"layers": [1], "to": "gla", "settings": {"fox.pro": True}}, "fox.pro=True: a setting of the new mixers must"),
        ({"settings": {"d_model": 16}}, "d_model=16 cannot be set in a trained model: it changes the shape of tokens"),
        ({"settings": {"n_layers": 3}}, "n_layers=3 cannot be set in a trained model: it removes blocks.3.0.before"),
        ({"settings": {"qk_norm": True}}, "qk_norm=True cannot be set in a trained model: it adds blocks.0.0.inner"),
        ({"settings": {"vocab_size": 14}}, "vocab_size=14 cannot be set by a transplant"),
        ({"settings": {"mixers": "gla"}}, "mixers='gla' cannot be set by a transplant"),
        ({"settings": {"windw": 3}}, "windw=3 is not a setting of LlamaConfig; did you mean 'window'"),
    ],
)
def test_transplant_refuses_what_cannot_be_done(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(LmzooError, match=message):
        transplant(trained(), **arguments)


def test_transplant_refuses_models_without_mixers_to_replace() -> None:
    with pytest.raises(ConfigError, match="bigram has no decoder frame"):
        transplant(lmzoo.create_model("bigram", vocab_size=13), layers=[0], to="gla")
    with pytest.raises(ConfigError, match="layer 0 of lstm has no mixer in a residual branch"):
        transplant(trained("lstm"), layers=[0], to="gla")
    shared = trained("hybrid", pattern="attention cross")
    with pytest.raises(ConfigError, match="layer 0 of hybrid must keep its mixer: later layers read its keys"):
        transplant(shared, layers=[0], to="gla")
    assert mixers(transplant(shared, layers=[1], to="gla").model)[1] == "GLA"
    carries = transplant(trained(), layers=[1], to="hybrid", settings={"hybrid.pattern": "attention cross"})
    assert carries.replaced[0].taken == ("q", "k", "v", "out")
    with pytest.raises(InputError, match="source=int must be a model of a registered family"):
        transplant(3, layers=[0], to="gla")  # type: ignore[arg-type]


def test_transplant_of_a_shared_mixer_leaves_the_others_shared() -> None:
    source = trained("hybrid", pattern="shared mamba shared shared")
    model = transplant(source, layers=[0], to="gla").model
    first, second = (blocks_of(model)[layer][0].inner for layer in (2, 3))
    assert first.attention is second.attention
    assert torch.equal(first.attention.qkv.weight, blocks_of(source)[0][0].inner.attention.qkv.weight)
