"""The base class of layers: the protocol, and parameters with initial values and roles."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from lmzoo import arguments
from lmzoo.errors import ConfigError
from lmzoo.layers.init import Init, is_deferred
from lmzoo.layers.projections import Projection
from lmzoo.roles import ROLES


class Layer(nn.Module):
    """A part of a network: `layer(x_BTD, state, ctx) -> (y_BTD, next state)`, or `layer(x_BTD) -> y_BTD`.

    A layer that uses earlier tokens has `init_state(batch_size, max_len, like)` and the first form. In training
    `state` is None, and the returned state is ignored (by convention it is None). In decoding the layer reads `state`,
    leaves it unchanged and returns the next one. Tensors of a state have the batch first. `like` is a tensor with the
    model's dtype and device. A layer without `init_state` has the second form.

    The model's traits and counts are computed from class or instance attributes of its layers:

    - `reach`: number of tokens an output can depend on, the present one included; None, the default, means all.
    - `state_growth`: growth of its state with the number of tokens: "constant" (default), "logarithmic" or "linear".
    - `flops(T)`: FLOPs of one token in a sequence of T, two per multiply-add, without its children.
    - `calls(T)`: how often a child runs, if not once per token: `{child name: (times per token, T of the child)}`.
    - `active`: the share of a parameter that one token uses, by name (experts).
    - `chooses`: rounding to 16 bits changes which entries its `stable_topk` takes (keys, not a few experts).
    - `keep_float32`: names of parameters that lose too much precision in 16 bits.
    - `transferable()`: projections to and from its heads, which another mixer can take over (`lmzoo.transplant`).

    Values inside that can be looked at, such as attention weights, are offered by `offers` (`lmzoo.layers.offers`).
    """

    reach: int | None = None

    def own(self, name: str, shape: tuple[int, ...], init: Init, role: str | None = None) -> None:
        """Creates the parameter `name` with its shape, initial values and role.

        The roles are the keys of `lmzoo.roles.ROLES`. One dimension defaults to "vector"; more need a role. Raises
        `ConfigError` for a missing or unknown role, and `InputError` for a size that is no integer from 0 on.
        """
        if role is None and len(shape) == 1:
            role = "vector"
        if role not in ROLES:
            rule = "needs a role:" if role is None else f"has the role {role!r}, which must be"
            raise ConfigError(f"{type(self).__name__}.{name} of shape {shape} {rule} one of {', '.join(ROLES)}")
        for axis, size in enumerate(shape):
            arguments.count(f"{type(self).__name__}.{name}.shape[{axis}]", size)
        if not callable(init):
            raise ConfigError(f"{type(self).__name__}.{name}: init={init!r} must be a function, such as constant(0.5)")
        self.__dict__.setdefault("_inits", {})[name] = init
        self.__dict__.setdefault("parameter_roles", {})[name] = role
        setattr(self, name, nn.Parameter(torch.empty(shape), requires_grad=role != "constant"))
        if not is_deferred():
            with torch.no_grad():
                init(getattr(self, name), None)

    def transferable(self) -> dict[str, Projection]:
        """Returns the projections that another mixer can take over: to the heads ("q", "k", "v") and from them ("out").

        The default is none: a mixer without heads, or whose projections have another meaning.
        """
        return {}

    def init_parameters(self, generator: torch.Generator | None = None) -> None:
        """Sets this layer's own parameters to new initial values, from `generator` or torch's global random state."""
        inits: dict[str, Any] = self.__dict__.get("_inits", {})
        with torch.no_grad():
            for name, init in inits.items():
                init(getattr(self, name), generator)
