"""Tests of the description of an architecture: kinds of keys, their defaults, and the errors."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from lmzoo.errors import CheckpointError
from lmzoo.hf.architecture import (
    Architecture,
    Config,
    Only,
    Same,
    To,
    Together,
    Unused,
    checked,
    keys_from,
    layer_words,
    refused,
)
from lmzoo.hf.weights import Head


def double(config: Config) -> dict[str, Any]:
    return {"double": 2 * config.value("half", 0)}


TOY = Architecture(
    model_type="toy",
    classes=("ToyForCausalLM",),
    family="llama",
    weights={"tokens.weight": "model.emb", "head.weight": Head("lm_head", tokens="model.emb")},
    keys={
        "hidden_size": To("d_model"),
        "eps": To("norm_eps", 0.1),
        "bias": To("bias", default=False, values={False: "none", True: "all"}),
        "act": Only("silu", ("swish",)),
        "chunk": Unused(),
    },
    together=(Together(("half",), double),),
    fixed={"gate": True},
)


def test_architecture_settings_are_those_of_its_keys() -> None:
    config = Config(hidden_size=3, half=4, bias=True, chunk=8, act="swish", torch_dtype="float32")
    expected = {"gate": True, "d_model": 3, "norm_eps": 0.1, "bias": "all", "double": 8}
    assert TOY.settings(config, frozenset({"torch_dtype"})) == expected
    assert TOY.weights_for(config) is TOY.weights
    assert replace(TOY, weights=lambda config: {"a": config["act"]}).weights_for(config) == {"a": "swish"}


@pytest.mark.parametrize(
    ("keys", "error"),
    [
        ({}, r"^hidden_size must be given$"),
        ({"hidden_size": 3, "act": "relu"}, r"^act='relu' must be 'silu' or 'swish': lmzoo has no other form"),
        ({"hidden_size": 3, "bias": "all"}, r"^bias='all' must be one of False, True$"),
        ({"hidden_size": 3, "bias": [1]}, r"^bias=\[1\] must be one of False, True$"),
        ({"hidden_size": 3, "half": 1.5}, r"^half=1\.5 must be a whole number$"),
        ({"hidden_size": 3, "epss": 1}, r"^epss=1 is not a key of toy that lmzoo knows; did you mean 'eps'\?$"),
    ],
)
def test_architecture_settings_name_key_value_and_rule(keys: dict[str, Any], error: str) -> None:
    with pytest.raises(CheckpointError, match=error):
        TOY.settings(Config(keys), frozenset())


def test_config_numbers_are_whole() -> None:
    assert Config(layers=[3, 1, 3]).numbers("layers") == {1, 3}
    assert Config(layers=None).numbers("layers", range(2)) == {0, 1}
    for wrong in ([1.0], [True], [[1]], ["1"], [None]):
        with pytest.raises(CheckpointError, match=r"^layers=.+ must be a list of whole numbers$"):
            Config(layers=wrong).numbers("layers")


def test_config_at_least_refuses_smaller_numbers() -> None:
    config = Config(every=0, null=None)
    assert config.at_least("every", 4, least=0) == 0
    assert config.at_least("null", 4) == config.at_least("missing", 4) == 4
    with pytest.raises(CheckpointError, match=r"^every=0 must be at least 1$"):
        config.at_least("every", 4)


def test_keys_from_settings_have_other_names() -> None:
    assert keys_from({"hidden_size": "d_model", "eps": "norm_eps"})({"d_model": 3, "norm_eps": 0.1, "gate": True}) == {
        "hidden_size": 3,
        "eps": 0.1,
    }


@pytest.mark.parametrize("config", [{}, {"heads": 8}, {"heads": 8, "twin": 8}, {"twin": 4}, {"heads": 8, "twin": None}])
def test_same_is_equal_to_another_key_or_missing(config: dict[str, Any]) -> None:
    assert Same("heads", 4).settings("twin", Config(config)) == {}


@pytest.mark.parametrize("config", [{"twin": 8}, {"heads": 8, "twin": 4}])
def test_same_refuses_another_value(config: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match=r"^twin=(8 must be heads=4|4 must be heads=8)$"):
        Same("heads", 4).settings("twin", Config(config))


def test_checked_keys_give_no_settings() -> None:
    def check(config: Config) -> None:
        if config.value("half", 0) % 2:
            raise refused("half", config["half"], "must be even")

    toy = replace(TOY, together=(checked(("half",), check),))
    assert toy.settings(Config(hidden_size=3, half=4), frozenset()) == toy.settings(Config(hidden_size=3), frozenset())
    assert toy.can_be_written
    with pytest.raises(CheckpointError, match=r"^half=3 must be even$"):
        toy.settings(Config(hidden_size=3, half=3), frozenset())


def test_config_checks_types() -> None:
    config = Config(whole=3, number=2.5, flag=True, null=None, words=["a", "b"], num_hidden_layers=2)
    assert config.value("whole", 1) == 3
    assert config.value("whole", 1.0) == 3, "a whole number is a number"
    assert config.value("null", 7) == config.value("missing", 7) == 7
    assert config.words("words", {"a": "x", "b": "y"}) == ["x", "y"]
    for key, default in (("flag", 1), ("number", 1), ("flag", 1.0), ("whole", False), ("whole", "")):
        with pytest.raises(CheckpointError, match=f"^{key}=.+ must be "):
            config.value(key, default)
    with pytest.raises(CheckpointError, match=r"^words='b' must be one of a$"):
        config.words("words", {"a": "x"})
    with pytest.raises(CheckpointError, match=r"^words=\['a', 'b'\] must have a word for each of 3 layers$"):
        Config(config, num_hidden_layers=3).words("words", {"a": "x", "b": "y"})
    with pytest.raises(CheckpointError, match=r"^num_hidden_layers=1000000000 must be a number from 1 to 10000$"):
        Config(num_hidden_layers=10**9).layers()


@pytest.mark.parametrize("number", [float("inf"), float("nan"), -float("inf"), 2e30, -(10**400)])
def test_value_refuses_numbers_with_which_nothing_can_be_computed(number: float) -> None:
    with pytest.raises(CheckpointError, match=r"^half=.+ must be a number of at most 1e\+30$"):
        TOY.settings(Config(hidden_size=3, half=number), frozenset())
    with pytest.raises(CheckpointError, match=r"^factor="):
        Config(factor=number).value("factor", 1.0, float)


def test_refused_shortens_long_values() -> None:
    assert str(refused("key", "x" * 1000, "must be short")).endswith("xxx... must be short")
    assert str(refused("key", 10**5000, "must be small")) == "key=a very large int must be small"


def test_architecture_settings_take_other_names_of_keys() -> None:
    toy = replace(TOY, aliases={"n_embd": "hidden_size"})
    assert toy.settings(Config(n_embd=3), frozenset()) == TOY.settings(Config(hidden_size=3), frozenset())
    with pytest.raises(CheckpointError, match=r"^n_embd=3 must be equal to hidden_size=4$"):
        toy.settings(Config(n_embd=3, hidden_size=4), frozenset())


def test_architecture_config_is_read_backwards() -> None:
    def half(ours: Any) -> dict[str, Any]:
        return {"half": ours["double"] // 2}

    toy = replace(TOY, together=(Together(("half",), double, half),), training={"pdrop": "dropout"})
    assert toy.can_be_written
    assert not TOY.can_be_written
    ours = {"d_model": 3, "norm_eps": 0.1, "bias": "all", "double": 8, "dropout": 0.2, "gate": True}
    config = toy.config(ours)
    assert config == {
        "model_type": "toy",
        "architectures": ["ToyForCausalLM"],
        "hidden_size": 3,
        "eps": 0.1,
        "bias": True,
        "act": "silu",
        "half": 4,
        "pdrop": 0.2,
        **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id")),
    }
    without_effect = frozenset(config) - {"hidden_size", "eps", "bias", "act", "half"}
    assert toy.settings(config, without_effect) == {name: value for name, value in ours.items() if name != "dropout"}


def test_key_without_null_refuses_it() -> None:
    key = To("x", 4096, null=False)
    assert key.settings("key", Config()) == {"x": 4096}
    with pytest.raises(CheckpointError, match=r"^key=None must not be null$"):
        key.settings("key", Config(key=None))


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        (To("x"), 3, {"key": 3}),
        (To("x", None), None, {}),  # what a missing key means
        (To("x", 4096), None, {"key": None}),
        (To("x", 4096, null=False), None, {}),  # transformers cannot do without it
        (To("x", 256), 20.0, {"key": 20}),  # a whole number, as the default
        (To("x", 256), 20.5, {}),
        (To("x", 1.0), 2.0, {"key": 2.0}),
        (To("x", "b", {"a": 1, "b": 1, "c": 2}), 1, {"key": "b"}),
        (To("x", "c", {"a": 1, "b": 1, "c": 2}), 1, {"key": "a"}),
        (To("x", "c", {"a": 1}), 3, {}),  # no value of the key says this
        (Only("silu", ("swish",)), 3, {"key": "silu"}),
        (Only(None, (False,)), 3, {}),
        (Unused(), 3, {}),
    ],
)
def test_key_inverse_is_the_value_for_a_setting(key: Any, value: Any, expected: dict[str, Any]) -> None:
    found = key.inverse("key", {"x": value})
    assert found == expected
    assert [type(each) for each in found.values()] == [type(each) for each in expected.values()]


def test_layer_words_are_read_backwards() -> None:
    known = {"full_attention": "full", "conv": "conv"}
    words = ["conv", "full", "conv"]
    found = layer_words("layer_types", words, known)
    assert Config(found, num_hidden_layers=3).words("layer_types", known) == words
    assert layer_words("layer_types", ["full", "nope"], known) == {}
