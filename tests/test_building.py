"""Tests how a model is built: weights come from the given generator alone, and an unfinished class is named."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import lmzoo
from lmzoo import building
from lmzoo.errors import ConfigError, InputError
from lmzoo.model import LanguageModel, ModelConfig
from lmzoo.state import State


class Plain(LanguageModel):
    """A model of plain torch modules, which draw their weights from the global random state."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.tokens = nn.Embedding(config.vocab_size, 8)
        self.head = nn.Linear(8, config.vocab_size)

    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        return self.tokens(idx_BT), state


def test_build_model_draws_plain_torch_modules_from_the_generator_too() -> None:
    before = torch.get_rng_state()
    config = ModelConfig(vocab_size=9, context_length=4)
    first, same, other = (
        building.build_model(Plain, config, generator=torch.Generator().manual_seed(seed)) for seed in (3, 3, 4)
    )
    assert torch.equal(torch.get_rng_state(), before), "the global random state was touched"
    assert torch.equal(first.head.weight, same.head.weight)
    assert not torch.equal(first.head.weight, other.head.weight)


def test_blank_model_names_the_methods_that_a_class_lacks() -> None:
    class Unfinished(lmzoo.MixerModel):
        pass

    config = lmzoo.MixerConfig(vocab_size=9)
    with pytest.raises(ConfigError, match=r"^Unfinished must define make_mixer\(config, layer\)$"):
        building.build_model(Unfinished, config)
    with pytest.raises(ConfigError, match=r"^Decoder must define block\(config, layer\)$"):
        building.blank_model(lmzoo.Decoder, config)


def test_checked_device_refuses_what_is_no_device_of_this_machine() -> None:
    assert building.checked_device("cpu") == torch.device("cpu")
    for wrong in (2**70, -1, "", "tpux"):
        with pytest.raises(InputError, match=f"device={wrong!r} is not a device of this machine"):
            building.checked_device(wrong)  # type: ignore[arg-type]
