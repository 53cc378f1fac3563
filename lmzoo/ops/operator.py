"""Registers a function as a torch operator, so that torch.compile captures one opaque call and not what is inside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

Function = TypeVar("Function", bound=Callable[..., Any])


def operator(name: str) -> Callable[[Function], Function]:
    """Registers the decorated function as `torch.ops.lmzoo.<name>`, for all devices; its types give the schema.

    The function must neither change its arguments nor return one of them. Autocast and autograd are off inside it: give
    the gradient with `torch.library.register_autograd` and the shapes of the result with `torch.library.register_fake`.
    `torch.library.custom_op` does the same, but its first call imports torch's compiler, which takes seconds.
    """

    def register(function: Function) -> Function:
        full_name = f"lmzoo::{name}"
        schema = torch.library.infer_schema(function, mutates_args=())
        torch.library.define(full_name, schema, tags=torch.Tag.pt2_compliant_tag)
        torch.library.impl(full_name, "CompositeExplicitAutograd", function)
        return function

    return register


def gradient_room(first: Tensor, *others: Tensor | None) -> list[Tensor]:
    """Returns room for the gradient of each input, empty for a missing one: an operator cannot return None."""
    return [first.new_empty(0 if x is None else x.shape) for x in (first, *others)]
