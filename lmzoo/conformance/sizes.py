"""Sizes of the models that are checked: a tiny form, which is quick to check in many ways, and a large form.

The config of a form has other values in the fields with the names below, and dropout rates of 0 (a check that needs
dropout sets it). Everything else in the config stays as it is. Enough layers are kept that every kind of block occurs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from lmzoo import configs, registry
from lmzoo.errors import ConfigError
from lmzoo.layers.stack import kind
from lmzoo.model import LanguageModel, ModelConfig

MOST_REACHES = 8  # different values of `reach` that the large form keeps: with more it would be too deep, and slow


@dataclass(frozen=True)
class Sizes:
    """Sizes of a form. If `exact`, fields are set to the values in `fields`; if not, larger values are reduced."""

    vocab_size: int
    context_length: int
    layers: int  # the least depth; more layers are kept if not every kind of block occurs in these
    fields: Mapping[str, int]
    options: Mapping[str, int] = field(default_factory=dict)  # set also if the field is None: options switched on
    exact: bool = False

    def chosen(self, settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, int]:
        """Returns the sizes to set in a config with these settings and default values."""
        found = {}
        for name, size in self.fields.items():
            value = settings.get(name, defaults.get(name))
            if name in defaults and isinstance(value, int) and (value > size or (self.exact and value != size)):
                found[name] = size
        return found | {name: size for name, size in self.options.items() if name in defaults}


TINY = Sizes(
    vocab_size=13,  # unlike every other size, so that a mix-up of axes is an error and not a coincidence
    context_length=24,  # more than one chunk of a chunked scan of 16, and more than two windows
    layers=2,  # a window of 5 over 2 layers reaches 9 tokens back, well inside the context
    fields={
        "d_model": 32,
        "n_heads": 4,
        "n_kv_heads": 4,
        "head_dim": 8,
        "d_ff": 128,  # the default is at most 4 d_model
        "d_state": 8,
        "window": 5,
        "n_experts": 4,
        "order": 3,  # so that a random text has every context of two tokens
        "capacity": 2000,  # less than all n-grams of such a text
        "top_keys": 6,  # so that keys are left out
        "block_length": 3,  # five complete blocks in 16 tokens, of which two may be left out
        "top_blocks": 1,
    },
)
# More than chunks of 32 to 256 tokens, 32 features, 2 layers, and 256 tokens in the vocabulary.
LARGE = Sizes(
    vocab_size=307,
    context_length=300,
    layers=4,
    fields={
        "d_model": 64,
        "n_heads": 4,
        "head_dim": 16,
        "d_ff": 96,
        "d_state": 16,
        "window": 70,
        "n_experts": 8,
        "order": 3,
        "capacity": 10_000,
        "top_keys": 16,
        "block_length": 16,
        "top_blocks": 2,
    },
    options={"n_kv_heads": 2},
    exact=True,
)


def sized_config(cls: type[LanguageModel], settings: Mapping[str, Any], sizes: Sizes) -> ModelConfig:
    """Returns the config of `settings` with other sizes, as many of `sizes` as the config's rules allow."""
    defaults = {field.name: field.default for field in dataclasses.fields(cls.config_class)}
    settings = {**settings}
    for name, size in (("vocab_size", sizes.vocab_size), ("context_length", sizes.context_length)):
        settings[name] = size if sizes.exact else min(settings.get(name, size), size)
    chosen = sizes.chosen(settings, defaults)
    if _is_allowed(cls, {**settings, **chosen}):
        settings |= chosen
    else:
        for name, size in chosen.items():  # one at a time: a rule between fields may forbid some of the sizes
            if _is_allowed(cls, {**settings, name: size}):
                settings[name] = size
    for name in defaults:
        if "dropout" in name and _is_allowed(cls, {**settings, name: 0.0}):
            settings[name] = 0.0
    if "n_layers" in defaults:
        settings["n_layers"] = fewest_layers(cls, settings, sizes)
    return configs.build(cls.config_class, settings)


def _is_allowed(cls: type[LanguageModel], settings: Mapping[str, Any]) -> bool:
    """True if the config accepts the settings."""
    try:
        configs.build(cls.config_class, settings)
    except ConfigError:
        return False
    return True


def fewest_layers(cls: type[LanguageModel], settings: Mapping[str, Any], sizes: Sizes = TINY) -> int:
    """Returns the smallest `n_layers` >= `sizes.layers` with every kind of block that the model of `settings` has.

    A model with fewer layers keeps its depth in the tiny form, and is made deeper in the large form. In the large form,
    blocks of one kind that differ in their `reach`, such as dilations, count as different kinds if there are at most
    `MOST_REACHES` of them.
    """
    config = configs.build(cls.config_class, settings)
    full: int = configs.to_dict(config)["n_layers"]
    if full < sizes.layers:
        deeper = sizes.exact and _is_allowed(cls, {**settings, "n_layers": sizes.layers})
        return sizes.layers if deeper else full
    try:
        reaches = sizes.exact and len({reach for _, reach in _kinds(cls, config)}) <= MOST_REACHES
        wanted = {found if reaches else found[:1] for found in _kinds(cls, config)}
    except Exception:  # it cannot be built on the meta device, which `construction` and `meta_device` report
        return sizes.layers
    for n in range(sizes.layers, full):
        try:
            kinds = _kinds(cls, configs.build(cls.config_class, {**settings, "n_layers": n}))
            if wanted <= {found if reaches else found[:1] for found in kinds}:
                return n
        except Exception:
            continue  # the config refuses this depth
    return full


def _kinds(cls: type[LanguageModel], config: ModelConfig) -> list[tuple[Hashable, Hashable]]:
    """Returns the kind of each block of the model, and the `reach` of its parts."""
    with torch.random.fork_rng(devices=[]):
        model = registry.blank_model(cls, config, device="meta")
    return [(kind(block), tuple(getattr(part, "reach", None) for part in block.modules())) for block in _blocks(model)]


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """Yields the blocks of a model: the members of its outermost module lists, such as `Stack`."""
    for child in module.children():
        yield from child if isinstance(child, (nn.ModuleList, nn.Sequential)) else _blocks(child)
