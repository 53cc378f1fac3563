"""Measures the share of experts that one token uses, and compares it with what the layers declare."""

from __future__ import annotations

import re
from collections import defaultdict

import torch
from torch import Tensor, nn

from lmzoo.conformance.clones import clone
from lmzoo.conformance.report import Fault
from lmzoo.conformance.roles import roles_by_id
from lmzoo.conformance.tiny import Subject
from lmzoo.flops import active_shares
from lmzoo.losses import reported
from lmzoo.model import LanguageModel

TOKENS = 6  # different tokens, each of them a text


def require_declared_use(subject: Subject) -> None:
    """Raises `Fault` if a token uses more or fewer experts than declared, or if a part for training counts as active.

    Experts are matrices of one shape, the entries of a stack or modules in a list, of which different tokens use
    different ones. A token uses those that get a gradient in a text of this token alone. If all tokens use the same
    ones, nothing is known: in so short a text many matrices of a sequence mixer have no effect.
    """
    model = subject.model()
    _require_no_training_parts(subject, model)
    groups = _groups(model)
    if not groups:
        return
    declared = active_shares(model)
    used: dict[str, list[set[tuple[int, int]]]] = defaultdict(list)
    for token in range(min(TOKENS, subject.config.vocab_size)):
        logits_V = model(torch.full((1, 1), token)).logits[0, 0]
        parameters = [parameter for group in groups.values() for parameter in group]
        output = logits_V @ torch.linspace(-1, 1, len(logits_V), dtype=logits_V.dtype)
        if not output.requires_grad:
            return
        found = dict(zip(parameters, torch.autograd.grad(output, parameters, allow_unused=True), strict=True))
        for name, group in groups.items():
            used[name].append(
                {(i, j) for i, parameter in enumerate(group) for j in _entries_with_gradient(found[parameter])}
            )
    for name, group in groups.items():
        counts = [len(entries) for entries in used[name]]
        if len(set().union(*used[name])) <= max(counts):
            continue
        total = sum(_entries(parameter) for parameter in group)
        share = sum(declared.get(id(parameter), 1.0) * _entries(parameter) for parameter in group) / total
        if len(group) > 1 and share == 1:
            continue  # a list of modules without `calls`: all experts are counted, an upper bound that is allowed
        if not min(counts) / total - 1e-6 <= share <= max(counts) / total + 1e-6:
            raise Fault(
                f"a token uses {max(counts)} of {total} matrices in {name}, and the share that num_params(active=True) "
                f"counts is {share:.3g}; look at `active` (of a stack of experts) and `calls(T)` (of a list of modules)"
            )


def _require_no_training_parts(subject: Subject, model: LanguageModel) -> None:
    """Raises `Fault` if parameters that only auxiliary losses use, in training, are counted as active."""
    T = min(subject.context, 16)
    idx, targets = subject.tokens(4, T), subject.tokens(4, T, seed=1)
    trained = clone(model).train()
    with reported() as named:
        loss = trained(idx, targets).loss
    if not named or not loss.requires_grad:
        return
    loss.backward()
    with_gradient = {name for name, p in trained.named_parameters() if p.grad is not None and p.grad.any()}
    model.zero_grad(set_to_none=True)
    logits_BTV = model(idx).logits
    logits_BTV.square().sum().backward()
    unused = [name for name, p in model.named_parameters() if p.grad is None and name in with_gradient]
    model.zero_grad(set_to_none=True)
    declared, changed = active_shares(model), clone(model)
    parameters = dict(model.named_parameters())
    for name, parameter in changed.named_parameters() if unused else ():
        if name in unused and declared.get(id(parameters[name]), 1.0) > 0:
            with torch.no_grad():
                parameter.add_(torch.linspace(0.5, 1, parameter.numel()).view_as(parameter))
                if torch.equal(changed(idx).logits, logits_BTV):
                    raise Fault(
                        f"{name} has no effect but in an auxiliary loss, and num_params(active=True) counts it; "
                        "declare a part that runs in training only: active = {NAME: 0} on its module, or calls(T) with "
                        "(0, T)"
                    )


def _groups(model: LanguageModel) -> dict[str, list[nn.Parameter]]:
    """Returns the matrices that may be experts: a stack, or those whose names differ in the last number."""
    role_of = roles_by_id(model)
    groups: dict[str, list[nn.Parameter]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if role_of[id(parameter)] == "matrices":
            groups[name] = [parameter]
        elif role_of[id(parameter)] == "matrix" and len(re.findall(r"\.\d+\.", name)) > 1:
            groups[re.sub(r"\.\d+(?=\.\D*$)", ".*", name)].append(parameter)
    return {name: group for name, group in groups.items() if sum(map(_entries, group)) > 1}


def _entries(parameter: Tensor) -> int:
    """Returns the number of matrices in a parameter."""
    return parameter.shape[0] if parameter.ndim > 2 else 1


def _entries_with_gradient(gradient: Tensor | None) -> list[int]:
    """Returns the indices of the matrices whose gradient is not zero."""
    if gradient is None:
        return []
    return (gradient if gradient.ndim > 2 else gradient[None]).flatten(1).any(1).nonzero().flatten().tolist()
