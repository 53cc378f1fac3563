"""The base class of layers: the protocol, and parameters with initial values and roles."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from lmzoo.layers.init import Init, is_deferred


class Layer(nn.Module):
    """A part of a network: `layer(x_BTD, state, ctx) -> (y_BTD, next state)`, or `layer(x_BTD) -> y_BTD`.

    A layer that uses earlier tokens has `init_state(batch_size, max_len, like)` and the first form. In training
    `state` is None, and the layer returns None as the next state. In decoding it reads `state`, leaves it unchanged
    and returns the next one. Tensors of a state have the batch first. `like` is a tensor with the model's dtype and
    device. A layer without `init_state` has the second form.

    The model's traits and counts are computed from class or instance attributes of its layers:

    - `reach`: number of tokens an output can depend on, the present one included; None, the default, means all.
    - `state_growth`: growth of its state with the number of tokens: "constant" (default), "logarithmic" or "linear".
    - `flops(T)`: FLOPs of one token in a sequence of T, two per multiply-add, without its children.
    - `calls(T)`: how often a child runs, if not once per token: `{child name: (times per token, T of the child)}`.
    - `active`: the share of a parameter that one token uses, by name (experts).
    - `keep_float32`: names of parameters that lose too much precision in 16 bits.
    """

    reach: int | None = None

    def own(self, name: str, shape: tuple[int, ...], init: Init, role: str | None = None) -> None:
        """Creates the parameter `name` with its shape, initial values and role.

        Roles: "matrix" (a map between features, trained by Muon), "matrices" (a stack of matrices in the last two
        axes), "embedding", "vector" (no weight decay). One dimension defaults to "vector"; more need a role.
        """
        assert role or len(shape) == 1, f"{type(self).__name__}.{name} of shape {shape} needs a role"
        self.__dict__.setdefault("_inits", {})[name] = init
        self.__dict__.setdefault("parameter_roles", {})[name] = role or "vector"
        setattr(self, name, nn.Parameter(torch.empty(shape)))
        if not is_deferred():
            with torch.no_grad():
                init(getattr(self, name), None)

    def init_parameters(self, generator: torch.Generator | None = None) -> None:
        """Sets this layer's own parameters to new initial values, from `generator` or torch's global random state."""
        inits: dict[str, Any] = self.__dict__.get("_inits", {})
        with torch.no_grad():
            for name, init in inits.items():
                init(getattr(self, name), generator)
