"""Checks of tied weights: one parameter, which one module owns, before and after loading and casting."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lmzoo import registry
from lmzoo.conformance.measure import require_same_bits
from lmzoo.conformance.report import Fault
from lmzoo.conformance.state_dicts import each_once, unsaved_hint
from lmzoo.conformance.tiny import Subject
from lmzoo.model import LanguageModel

REFER = "a layer that uses the parameter of another must refer to it (lmzoo.layers.head.TiedHead)"


def tied_weights(subject: Subject) -> str:
    """Checks that tied weights stay tied after loading and casting, and that tying follows `tie_embeddings`."""
    _require_one_parameter(subject)
    model = subject.model()
    before = shared(model)
    idx = subject.tokens(2, 5)
    copied = subject.model(seed=3)
    missing, unexpected = copied.load_state_dict(each_once(model), strict=False)
    lost = [name for name in missing if name not in {other for group in before for other in group}]
    if lost or unexpected:
        raise Fault(
            f"the state dict of a model does not fit another model of the same config: missing {lost}, unexpected "
            f"{list(unexpected)}; look at parameters and buffers that depend on the weights or on the seed"
        )
    for what, other in (("load_state_dict", copied), ("double().float()", subject.model().double().float())):
        if shared(other) != before:
            raise Fault(f"the groups of tied parameters are {before}, but {shared(other)} after {what}; {REFER}")
    found_BTV, expected_BTV = copied(idx).logits, model(idx).logits
    if not torch.equal(found_BTV, expected_BTV):
        where = f"buffers that are not saved, tying{unsaved_hint(subject)}"
        require_same_bits(found_BTV, expected_BTV, "a model that has loaded another's weights", where)

    # With tie_embeddings=True the two must be one tensor: equal copies would differ after a training step.
    tied = getattr(model.config, "tie_embeddings", None)
    ignored = "tie_embeddings" in getattr(type(model.config), "without_effect", ())
    if tied is not None and not ignored and _head_uses_embedding(model, idx) is (not tied):
        raise Fault(
            f"the config says tie_embeddings={tied}, but the head's weight is {'not ' if tied else ''}the embedding's: "
            f"a change of the embedding {'does not change' if tied else 'changes'} what the head computes; look at the "
            "constructor, where it sets the head"
        )
    return (
        f"{len(before)} groups of shared parameters, kept through load and cast"
        if before
        else "no shared parameters, as the config says"
    )


@torch.no_grad()
def _head_uses_embedding(model: LanguageModel, idx: Tensor) -> bool | None:
    """True if other token embeddings give other logits for the same features; None if nothing can be said.

    A model may have several embeddings, of which one is tied, and an embedding may have rows for padding. Nothing can
    be said without an embedding, or if the head has no parameter and does not read the embedding: then `features` may
    compute the logits.
    """
    V = model.config.vocab_size
    heads = {id(p) for p in model.head.parameters()}
    tables = [m.weight for m in model.modules() if isinstance(m, nn.Embedding) and m.weight.shape[0] >= V]
    tables = tables or [p for p in model.parameters() if p.shape[:1] == (V,) and id(p) not in heads][:1]
    if not tables:
        return None
    x_BTD, _ = model.features(idx)
    before_BTV = model.head(x_BTD)
    for table in tables:
        table.add_(torch.linspace(1, 2, table.numel(), dtype=table.dtype).view_as(table))
    reads = not torch.equal(model.head(x_BTD), before_BTV)
    return reads if reads or heads else None


def _require_one_parameter(subject: Subject) -> None:
    """Raises `Fault` if two parameters have one memory, or if two modules own one parameter.

    Two parameters in one memory are trained twice, and a copy of the model has them apart. A parameter of two modules
    is drawn twice, and `to_empty()` makes two of it. A module under two names is no fault: it stays one module. A newly
    built model is examined, because in a clone each parameter has its own memory.
    """
    model = registry.build_model(subject.cls, subject.config, generator=torch.Generator().manual_seed(0))
    parameters = dict(model.named_parameters())  # each once
    for first, *others in shared(model):
        twice = [name for name in others if name in parameters]
        if first in parameters and twice:
            raise Fault(
                f"{first} and {twice[0]} are two parameters in one memory, each with a gradient of its own; {REFER}"
            )
    owned: dict[int, str] = {}
    for where, module in model.named_modules():
        for name, parameter in module.named_parameters(where, recurse=False):
            if id(parameter) in owned:
                raise Fault(
                    f"{owned[id(parameter)]} and {name} are one parameter that two modules own: it is drawn twice, and "
                    f"to_empty(), which fills a model from the meta device, unties it; {REFER}"
                )
            owned[id(parameter)] = name


def shared(model: nn.Module) -> list[list[str]]:
    """Returns the names of parameters that share memory, in groups."""
    groups: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        groups.setdefault(parameter.data_ptr(), []).append(name)
    return [names for names in groups.values() if len(names) > 1]
