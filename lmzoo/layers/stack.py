"""Composers of layers: in sequence (`Stack`), as a residual branch (`Residual`), in parallel (`Parallel`).

Code that needs a model's structure reads it from these composers in the module tree: activation checkpointing and FSDP
work on the blocks of a stack, traits are sums over layers, and the drawing follows the branches.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Iterable
from dataclasses import replace
from functools import cache
from types import MethodType
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lmzoo.layers.context import Context
from lmzoo.state import State

GROWTHS = ("none", "constant", "logarithmic", "linear")  # from the slowest to the fastest
UNDECLARED = object()


def call(layer: nn.Module, x_BTD: Tensor, state: State, ctx: Context) -> tuple[Tensor, State]:
    """Calls a layer with its state and context, or with x only if it has no state.

    Raises `TypeError` for a layer with `init_state` that returns something else than a pair.
    """
    if not hasattr(layer, "init_state"):
        return layer(x_BTD), None
    out = layer(x_BTD, state, ctx)
    if not isinstance(out, tuple) or len(out) != 2:
        raise TypeError(f"{type(layer).__name__}.forward must return (y, next state): it has init_state")
    return out


def require_layer(where: str, layer: object) -> None:
    """Raises `TypeError` unless `layer` is a module that `call` can call. `where` names the composer that holds it."""
    if not isinstance(layer, nn.Module):
        raise TypeError(f"{where} takes layers, not a {type(layer).__name__}; Stack([a, b]) makes one layer of several")
    name, has_init_state = type(layer).__name__, hasattr(layer, "init_state")
    arguments = ("x_BTD", "state", "ctx") if has_init_state else ("x_BTD",)
    forward = layer.forward
    if not (
        _method_takes(forward.__func__, arguments) if isinstance(forward, MethodType) else _takes(forward, arguments)
    ):
        if has_init_state:
            raise TypeError(f"{name} has init_state, so its forward must take (x_BTD, state, ctx)")
        raise TypeError(
            f"{name} has no init_state, so its forward is called with x_BTD alone: "
            "define init_state(batch_size, max_len, like), or remove the other arguments of forward"
        )


def _takes(function: Callable[..., Any], arguments: tuple[str, ...]) -> bool:
    """True if a function takes these positional arguments."""
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError:
        return False
    return True


@cache
def _method_takes(function: Callable[..., Any], arguments: tuple[str, ...]) -> bool:
    """True if a method takes these arguments after `self`. Cached: a model has hundreds of layers of a few classes."""
    return _takes(function, ("self", *arguments))


def init_state(layer: nn.Module, batch_size: int, max_len: int, like: Tensor) -> State:
    """Returns the layer's state before the first token; None for a layer without a state."""
    init: Any = getattr(layer, "init_state", None)
    return None if init is None else init(batch_size, max_len, like)


class Stack(nn.ModuleList):
    """Layers in sequence. A block is a stack, and so is a model's list of blocks."""

    checkpoints = False  # activation checkpointing: keep each layer's input, recompute the rest in the backward pass

    def __init__(self, layers: Iterable[nn.Module], *_others: object) -> None:  # _others: only for the error
        if _others or not isinstance(layers, Iterable):
            raise TypeError("Stack takes one list of layers: Stack([a, b])")
        layers = list(layers)
        for layer in layers:
            require_layer("Stack", layer)
        super().__init__(layers)

    def init_state(self, batch_size: int, max_len: int, like: Tensor) -> list[State]:
        """Returns the list of the layers' states before the first token."""
        return [init_state(layer, batch_size, max_len, like) for layer in self]

    def forward(self, x_BTD: Tensor, state: list[State] | None, ctx: Context) -> tuple[Tensor, list[State] | None]:
        after: list[State] = []
        for i, layer in enumerate(self):
            if self.checkpoints and state is None and torch.is_grad_enabled():
                x_BTD, ctx.carry = checkpoint(_checkpointed, layer, x_BTD, ctx, ctx.carry, use_reentrant=False)
                piece = None
            else:
                x_BTD, piece = call(layer, x_BTD, None if state is None else state[i], ctx)
            after.append(piece)
        return x_BTD, None if state is None else after


def _checkpointed(
    layer: nn.Module, x_BTD: Tensor, ctx: Context, carry: dict[str, Any]
) -> tuple[Tensor, dict[str, Any]]:
    """Calls a layer in training; returns its output and the carried values.

    It works on a copy of `carry`: it runs again in the backward pass, after later layers have replaced values.
    """
    ctx = replace(ctx, carry=dict(carry))
    x_BTD, _ = call(layer, x_BTD, None, ctx)
    return x_BTD, ctx.carry


class Residual(nn.Module):
    """`x + after(inner(before(x)))`: pre-norm has only `before`, post-norm only `after`, sandwich norm both."""

    def __init__(self, before: nn.Module | None, inner: nn.Module, after: nn.Module | None = None) -> None:
        super().__init__()
        require_layer("Residual", inner)
        self.before, self.inner, self.after = before, inner, after

    def init_state(self, batch_size: int, max_len: int, like: Tensor) -> State:
        """Returns the inner layer's state before the first token."""
        return init_state(self.inner, batch_size, max_len, like)

    def branch(self, x_BTD: Tensor, state: State, ctx: Context) -> tuple[Tensor, State]:
        """Returns the output of the branch, without adding x, and the inner layer's next state."""
        y_BTD = x_BTD if self.before is None else self.before(x_BTD)
        y_BTD, state = call(self.inner, y_BTD, state, ctx)
        return (y_BTD if self.after is None else self.after(y_BTD)), state

    def forward(self, x_BTD: Tensor, state: State, ctx: Context) -> tuple[Tensor, State]:
        y_BTD, state = self.branch(x_BTD, state, ctx)
        return x_BTD + y_BTD, state


class Parallel(nn.ModuleList):
    """`x` plus the sum of its residual branches, which all read x (GPT-J, GPT-NeoX)."""

    def __init__(self, *residuals: Residual) -> None:
        for residual in residuals:
            if not isinstance(residual, Residual):
                name = type(residual).__name__
                raise TypeError(
                    f"Parallel takes residual branches, Parallel(Residual(...), Residual(...)), not a {name}"
                )
        super().__init__(residuals)

    def init_state(self, batch_size: int, max_len: int, like: Tensor) -> list[State]:
        """Returns the list of the branches' states before the first token."""
        return [init_state(residual, batch_size, max_len, like) for residual in self]

    def forward(self, x_BTD: Tensor, state: list[State] | None, ctx: Context) -> tuple[Tensor, list[State] | None]:
        after: list[State] = []
        y_BTD, residuals = x_BTD, cast(list[Residual], list(self))
        for i, residual in enumerate(residuals):
            branch_BTD, piece = residual.branch(x_BTD, None if state is None else state[i], ctx)
            y_BTD = y_BTD + branch_BTD
            after.append(piece)
        return y_BTD, None if state is None else after


def outermost_stacks(model: nn.Module) -> list[Stack]:
    """Returns the stacks that are in no other stack: a decoder has one, its blocks."""
    found: list[Stack] = []
    for child in model.children():
        found += [child] if isinstance(child, Stack) else outermost_stacks(child)
    return found


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """Returns the layers of the outermost stacks, in order: the blocks that are repeated over the model's depth."""
    return [block for stack in outermost_stacks(model) for block in stack]


def kind(block: nn.Module) -> Hashable:
    """Returns a value that is equal for two blocks of the same kind: with the same classes, shapes and switches.

    Switches are booleans, texts, functions, and options that are None or not. Other numbers are ignored, because a
    layer's index, or a scale that depends on it, differs from block to block.
    """
    return tuple(
        (
            name,
            type(module),
            tuple((key, tuple(p.shape)) for key, p in module.named_parameters(recurse=False)),
            tuple((key, _switch(value)) for key, value in sorted(vars(module).items()) if not key.startswith("_")),
        )
        for name, module in block.named_modules()
    )


def _switch(value: object) -> Hashable:
    return value if isinstance(value, (bool, str)) else getattr(value, "__qualname__", type(value))


def reach(layer: nn.Module) -> int | None:
    """Returns the number of tokens that an output of the layer can depend on, the present one included; None: all."""
    declared: Any = getattr(layer, "reach", UNDECLARED)
    if declared is not UNDECLARED:
        return declared
    reaches = [reach(child) for child in layer.children()]
    if None in reaches:
        return None
    lengths = [length for length in reaches if length is not None]
    return max(lengths, default=1) if isinstance(layer, Parallel) else 1 + sum(length - 1 for length in lengths)


def state_growth(layer: nn.Module) -> str:
    """Returns the fastest growth of the states in the layer. A state without a declaration counts as constant."""
    found = ["none"]
    for module in layer.modules():
        if not isinstance(module, (Stack, Residual, Parallel)) and hasattr(module, "init_state"):
            found.append(getattr(module, "state_growth", "constant"))
    return max(found, key=GROWTHS.index)


def chooses(layer: nn.Module) -> bool:
    """Returns True if a part of the layer declares `chooses`."""
    return any(getattr(module, "chooses", False) for module in layer.modules())


def has_state(layer: nn.Module) -> bool:
    """Returns False if a part that depends on earlier tokens has no state: decoding then reads all tokens again."""
    if isinstance(layer, (Stack, Residual, Parallel)):
        return all(has_state(child) for child in layer.children())
    return hasattr(layer, "init_state") or reach(layer) == 1
