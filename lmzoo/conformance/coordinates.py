"""The coordinate check: how the size of activations depends on the width, at the start and after a few steps.

Yang et al. 2022 (arXiv 2203.03466, appendix D.1). A model whose activations grow or shrink with its width at the start,
or after a few steps with one learning rate, needs another learning rate or other initial values at each width. This
check gives no verdict: for each role of parameters it reports the root mean square of the outputs of its modules at
several widths, and the exponent p of a fitted power law, width^p. An exponent near zero is desirable.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lmzoo import registry
from lmzoo.configs import require
from lmzoo.conformance.adam import Adam
from lmzoo.conformance.roles import roles_by_id
from lmzoo.model import LanguageModel

WIDTHS = (64, 128, 256, 512)
STEPS = 4
LEARNING_RATE = 1e-3
ROWS, T, VOCAB_SIZE = 8, 32, 67
WHOLE = ("features", "logits")  # of the whole model, beside its roles
WHEN = ("start", "end")

Magnitudes = dict[str, float]  # root mean square by module


def coordinate_check(name: str, widths: Sequence[int] = WIDTHS, *, steps: int = STEPS, seed: int = 0) -> dict[str, Any]:
    """Measures activations of the model `name` at each width, before and after `steps` steps of Adam, as JSON values.

    `roles` has for each role, and for the features and the logits of the whole model, the root mean square at each
    width (the mean over the role's modules) at the `start` and at the `end`, and the exponents of both. `modules` has
    the same for each module that owns parameters. Raises `ConfigError` for a model without a width.
    """
    role_of: dict[str, str] = {}
    start: list[Magnitudes] = []
    end: list[Magnitudes] = []
    for width in widths:
        draw = torch.Generator().manual_seed(seed)
        model = at_width(name, width, draw)
        idx_BT, targets_BT = (torch.randint(VOCAB_SIZE, (ROWS, T), generator=draw) for _ in range(2))
        role_of |= roles_of_modules(model)
        start.append(activations(model, idx_BT))
        optimizer = Adam(model.parameters(), LEARNING_RATE)
        for _ in range(steps):
            model.zero_grad()
            model.train()(idx_BT, targets_BT, return_logits=False).loss.backward()
            optimizer.step()
        end.append(activations(model, idx_BT))
    modules: dict[str, Any] = {}
    roles: dict[str, Any] = {}
    for module in start[0]:
        values = ([sizes[module] for sizes in of_width] for of_width in (start, end))
        modules[module] = {"role": role_of.get(module, module), **_table(widths, *values)}
    for role in sorted({entry["role"] for entry in modules.values()}, key=lambda role: (role in WHOLE, role)):
        members = [entry for entry in modules.values() if entry["role"] == role]
        means = ([sum(x) / len(members) for x in zip(*(m[when] for m in members), strict=True)] for when in WHEN)
        roles[role] = {"modules": len(members), **_table(widths, *means)}
    return {"name": name, "widths": [*widths], "steps": steps, "roles": roles, "modules": modules}


def at_width(name: str, width: int, generator: torch.Generator) -> LanguageModel:
    """Makes the model with `width` in the first of its scaled fields; the others keep their proportion to it."""
    family, preset = registry.split_name(name)
    cls = registry.model_class(family.name)
    scaled = cls.config_class.scaled
    require(bool(scaled), f"{name} has no width: no field of its config grows with one")
    given: dict[str, Any] = {**(preset.model if preset else {}), "vocab_size": VOCAB_SIZE, "context_length": T}
    if "dropout" in cls.config_class.__dataclass_fields__:
        given["dropout"] = 0.0
    base: Any = registry.create_model(name, device="meta", **given).config
    first = next(iter(scaled))
    for field, multiple in scaled.items():
        share = width * getattr(base, field) / getattr(base, first)
        given[field] = width if field == first else max(multiple, round(share / multiple) * multiple)
    return registry.create_model(name, generator=generator, **given)


def roles_of_modules(model: LanguageModel) -> dict[str, str]:
    """Returns the role of each module that owns parameters: the role of the largest of them."""
    role_of = roles_by_id(model)
    roles = {}
    for name, module in model.named_modules():
        own = list(module.parameters(recurse=False))
        if own:
            roles[name] = role_of[id(max(own, key=torch.numel))]
    return roles


@torch.no_grad()
def activations(model: LanguageModel, idx_BT: Tensor) -> Magnitudes:
    """Returns the root mean square of the output of each module that owns parameters, of features and of logits."""
    sizes: Magnitudes = {}

    def hook_of(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            y = output if isinstance(output, Tensor) else output[0]
            sizes.setdefault(name, _rms(y))  # the first output of a module that runs several times

        return hook

    model.eval()
    modules = dict(model.named_modules())
    hooks = [modules[name].register_forward_hook(hook_of(name)) for name in roles_of_modules(model)]
    try:
        logits_BTV = model(idx_BT).logits
        sizes["features"] = _rms(model.features(idx_BT)[0])
        sizes["logits"] = _rms(logits_BTV)
    finally:
        for hook in hooks:
            hook.remove()
    return sizes


def _rms(x: Tensor) -> float:
    return x.double().square().mean().sqrt().item()


def _table(widths: Sequence[int], start: Sequence[float], end: Sequence[float]) -> dict[str, Any]:
    exponents = {f"{when}_exponent": exponent(widths, values) for when, values in zip(WHEN, (start, end), strict=True)}
    return {"start": [*start], "end": [*end], **exponents}


def exponent(widths: Sequence[int], values: Sequence[float]) -> float | None:
    """Fits width^p to the values, by least squares of the logarithms; None if a value is zero."""
    if min(values) <= 0 or len(widths) < 2:
        return None
    xs, ys = [math.log(width) for width in widths], [math.log(value) for value in values]
    x_mean, y_mean = sum(xs) / len(xs), sum(ys) / len(ys)
    covariance = sum((x - x_mean) * (y - y_mean) for x, y in zip(xs, ys, strict=True))
    return covariance / sum((x - x_mean) ** 2 for x in xs)
