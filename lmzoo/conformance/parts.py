"""Finds a number of parts (heads, groups) that does not divide a size, and so leaves weights without use."""

from __future__ import annotations

import dataclasses

import torch

from lmzoo import configs, registry
from lmzoo.conformance.measure import backward
from lmzoo.conformance.report import Fault
from lmzoo.conformance.roles import roles_by_id
from lmzoo.conformance.tiny import Subject, perturb
from lmzoo.model import ModelConfig

TOKENS = 8
SEEDS = 3  # of weights and tokens: an activation such as ReLU may be zero everywhere by chance


def require_parts_in_use(subject: Subject) -> None:
    """Raises `Fault` if a number `n_...` one less or more leaves rows or columns of a matrix without a gradient.

    In the tiny form most sizes are powers of two, of which each number divides the next. Numbers beside them do not:
    the config must refuse them, or the model must use all of its weights.
    """
    before: set[tuple[str, int]] | None = None
    for name, value in configs.to_dict(subject.config).items():
        if not name.startswith("n_") or name == "n_layers" or not isinstance(value, int) or value < 2:
            continue
        for other in (value - 1, value + 1) if value >= 4 else (value + 1,):  # 1 and 2 divide all sizes
            try:
                config = dataclasses.replace(subject.config, **{name: other})
                found = _unused(subject, config, 0, TOKENS)
                before = _unused(subject, subject.config, 0, TOKENS) if before is None and found else before
                found = {place for place in found if place not in (before or set())}
                for seed in range(1, SEEDS) if found else ():
                    found &= _unused(subject, config, seed, 3 * subject.context)  # some parts read far back
            except Exception:  # the config refuses this value, or the model cannot run with it: nothing is missed
                continue
            if found:
                parameter, axis = min(found)
                which = "rows" if axis == 0 else "columns"
                raise Fault(
                    f"{name}={other} leaves {which} of {parameter} without a gradient, and {name}={value} does not: a "
                    f"part of the weights is not used; let the config refuse a {name} that does not divide its size"
                )


def _unused(subject: Subject, config: ModelConfig, seed: int, tokens: int) -> set[tuple[str, int]]:
    """Returns the matrices, and their axis, in which the gradient of some entries along the axis is zero."""
    model = registry.build_model(subject.cls, config, generator=torch.Generator().manual_seed(seed))
    perturb(model.double(), seed)
    role_of = roles_by_id(model)
    T = tokens if model.traits.extrapolates else min(tokens, config.context_length)
    backward(model.eval()(subject.tokens(4, T, seed=seed), subject.tokens(4, T, seed=seed + 1)).loss)
    return {
        (name, axis)
        for name, parameter in model.named_parameters()
        if role_of[id(parameter)] == "matrix" and parameter.ndim == 2 and parameter.grad is not None
        for axis in (0, 1)
        if (parameter.grad == 0).all(1 - axis).any()
    }
