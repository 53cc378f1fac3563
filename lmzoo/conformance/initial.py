"""Checks of initial values: one layer draws each parameter, and nothing changes it after that."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lmzoo.conformance.report import Fault
from lmzoo.conformance.tiny import Subject

KEEP = "look at the constructor: give the layer its initial values (`init=`, `own`) instead of changing them later"


def initialization(subject: Subject) -> str:
    """Checks that no parameter is initialized by two layers, and that no constructor changes one after it was drawn.

    A layer draws its parameters when it is constructed, and again in `init_weights`, which every model goes through
    before training. So what the constructor of the model does to them in between is lost.
    """
    model = subject.model(perturbed=False)
    owners: dict[str, list[str]] = {}
    generator = torch.Generator().manual_seed(0)
    for name, module in model.named_modules():
        initialize: Any = getattr(module, "init_parameters", None)
        if module is model or initialize is None:
            continue
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(torch.nan)
        initialize(generator)
        for drawn, parameter in model.named_parameters():
            if not parameter.isnan().all():
                owners.setdefault(drawn, []).append(name)
    for parameter_name, modules in owners.items():
        if len(modules) > 1:
            raise Fault(
                f"{parameter_name} is initialized by {' and again by '.join(modules)}: the last draw overwrites the "
                "others; one layer must own it"
            )
    _require_kept(subject)
    return f"{len(owners)} parameters, each initialized by one layer"


@torch.no_grad()
def _require_kept(subject: Subject) -> None:
    """Raises `Fault` if a constructor changes values that their layer has drawn, and will draw again.

    Values that are not random must be the same; of random ones, the mean and the standard deviation are compared.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = subject.cls(subject.config)
    owned = {
        f"{where}.{name}".lstrip("."): parameter
        for where, module in model.named_modules()
        if _draws_twice(module)
        for name, parameter in module.named_parameters(recurse=False)
    }
    before = {name: parameter.clone() for name, parameter in owned.items()}
    model.init_weights(torch.Generator().manual_seed(1))
    first = {name: parameter.clone() for name, parameter in owned.items()}
    model.init_weights(torch.Generator().manual_seed(0))
    for name, parameter in owned.items():
        (mean, std), (new_mean, new_std) = _moments(before[name]), _moments(parameter)
        if torch.equal(first[name], parameter) and not torch.allclose(before[name], parameter):
            raise Fault(
                f"the values of {name} after the constructor (mean {mean:.3g}) are not those that init_weights() gives "
                f"it (mean {new_mean:.3g}); {KEEP}"
            )
        error = 6 / parameter.numel() ** 0.5  # six standard errors of the mean, and more than that of the deviation
        if abs(std - new_std) > (0.1 + error) * max(std, new_std) or abs(mean - new_mean) > (
            (0.01 + error) * max(std, new_std) + 1e-6
        ):
            raise Fault(
                f"{name} has the mean {mean:.3g} and the standard deviation {std:.3g} after the constructor, and "
                f"{new_mean:.3g} and {new_std:.3g} after init_weights(), which draws it again; {KEEP}"
            )


def _draws_twice(module: nn.Module) -> bool:
    """True for a layer that draws the same values in its constructor and in `init_parameters`: one that uses `own`."""
    initialize = getattr(type(module), "init_parameters", None)  # also inherited, as by a layer of a plug-in
    return initialize is not None and initialize.__module__.startswith("lmzoo.layers.")


def _moments(parameter: Tensor) -> tuple[float, float]:
    """Returns the mean and the standard deviation."""
    return parameter.mean().item(), parameter.std(correction=0).item()
