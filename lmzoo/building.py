"""Builds a model from its class and its config. Importing this does not import torch, because `registry` imports it."""

from __future__ import annotations

import inspect
from contextlib import nullcontext
from typing import TYPE_CHECKING, TypeVar

from lmzoo.errors import ConfigError, InputError

if TYPE_CHECKING:
    import torch

    from lmzoo.model import LanguageModel, ModelConfig

Model = TypeVar("Model", bound="LanguageModel")


def build_model(
    cls: type[Model],
    config: ModelConfig,
    *,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
) -> Model:
    """Create a model of the class `cls`; every model that is trained is built here.

    The weights are drawn once, from `generator` (a CPU generator; the global random state is then unchanged) or else
    from the global random state. They are drawn on the CPU, so that they are the same on every `device`. On "meta" no
    weights are drawn, and no memory is used. Raises `InputError` for a wrong generator or device, and `ConfigError` for
    a size that this machine cannot hold.
    """
    import torch

    device = None if device is None else checked_device(device)
    if device is not None and device.type == "meta":
        return blank_model(cls, config, device="meta")
    if generator is not None and not isinstance(generator, torch.Generator):
        raise InputError(f"generator={generator!r} must be a torch.Generator")
    with nullcontext() if generator is None else torch.random.fork_rng(devices=[]):
        if generator is not None:  # plain torch modules draw from the global state
            twin = torch.Generator().set_state(generator.get_state())  # so that `generator` itself does not move
            torch.default_generator.manual_seed(int(torch.randint(2**62, (), generator=twin)))
        model = blank_model(cls, config)
    model.init_weights(generator)
    return model if device is None else model.to(device)


def blank_model(cls: type[Model], config: ModelConfig, *, device: str | None = None) -> Model:
    """Create a model without drawing weights, for a caller that sets them next, or on "meta" for one that needs none.

    Drawing normal values on the meta device would import torch's compiler, which takes seconds. Raises `ConfigError`
    for a class that lacks a required method.
    """
    import torch

    from lmzoo import bounds
    from lmzoo.layers.init import deferred

    if missing := sorted(getattr(cls, "__abstractmethods__", ())):
        raise ConfigError(f"{cls.__name__} must define {' and '.join(_call_form(cls, name) for name in missing)}")
    with deferred(), bounds.building(config), nullcontext() if device is None else torch.device(device):
        return cls(config)


def _call_form(cls: type[Model], name: str) -> str:
    """Return a method as it is called, as in "make_mixer(config, layer)"."""
    _self, *parameters = inspect.signature(getattr(cls, name)).parameters
    return f"{name}({', '.join(parameters)})"


def checked_device(device: torch.device | str) -> torch.device:
    """Returns a device of this machine. Raises `InputError` for any other."""
    import torch

    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, TypeError, ValueError, NotImplementedError) as error:
        raise InputError(f"device={device!r} is not a device of this machine") from error
    return found
