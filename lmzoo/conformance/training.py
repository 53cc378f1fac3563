"""Checks that a model can be trained from its initial weights, with all of its parameters."""

from __future__ import annotations

import math
from collections import Counter, defaultdict

import torch
from torch import Tensor

from lmzoo.conformance.adam import Adam
from lmzoo.conformance.fitting import require_fit
from lmzoo.conformance.measure import FLOAT64_ROUNDING, NOT_FINITE, backward, difference
from lmzoo.conformance.presets import widest_preset
from lmzoo.conformance.recomputation import require_repeatable_backward
from lmzoo.conformance.report import Fault
from lmzoo.conformance.roles import roles_by_id
from lmzoo.conformance.tiny import Subject
from lmzoo.model import LanguageModel

START_TOLERANCE = 0.05  # of ln V
CANCELED = 1e-12  # of the largest gradient of a parameter: gradients that cancel leave rounding errors of float64
STEPS = 120  # of Adam, which suffice for most models
WEAK_STEPS = 600  # for a model that is still learning after STEPS
COVERED = 0.6  # share of the way from ln V down to the lowest loss possible on the batch
WEAK = 0.3  # the same for a model that has converged: it may be too small for more
CONVERGED = 0.02  # nats: the loss of a converged model falls by at most this in 40 steps


def initial_loss(subject: Subject) -> str:
    """Checks that the loss with initial weights is near ln V if traits says uniform_at_start=True, and only then.

    If it is True, the loss of the widest preset of at most 768 features must be near ln V, too.
    """
    found = [_initial_loss(subject, seed) for seed in range(1 if subject.is_variant else 3)]
    seen = _require_declared_start(subject, found)
    wide = None if subject.is_variant else widest_preset(subject)
    if wide is not None and wide.model(perturbed=False).traits.uniform_at_start:
        try:
            _require_declared_start(wide, [_initial_loss(wide, seed=0)])
        except Fault as fault:
            raise Fault(f"{wide.name} with d_model={wide.settings['d_model']}: {fault}") from fault
    return seen


def _initial_loss(subject: Subject, seed: int) -> float:
    """Returns the loss of a fresh model on random tokens, in nats."""
    idx = subject.tokens(8, min(subject.context, 16), seed=seed)
    with torch.no_grad():
        return subject.model(perturbed=False, seed=seed)(idx, subject.tokens(*idx.shape, seed=seed + 10)).loss.item()


def _require_declared_start(subject: Subject, found: list[float]) -> str:
    """Raises `Fault` if the losses `found` are near ln V and traits says otherwise, or not near and it does."""
    uniform = math.log(subject.config.vocab_size)
    declared = subject.model(perturbed=False).traits.uniform_at_start
    loss = max(found, key=lambda value: abs(value - uniform))
    near = abs(loss - uniform) <= START_TOLERANCE * uniform
    if declared and not near:
        raise Fault(
            f"the loss of a fresh model is {loss:.3f}, more than 5 % from ln V = {uniform:.3f}; "
            "look at the initial weights of the head and at the scale of its input"
        )
    if near and not declared and not subject.is_variant:  # one seed may be near by chance
        raise Fault(
            f"traits says uniform_at_start=False, but the loss of a fresh model is {loss:.3f}, and ln V is "
            f"{uniform:.3f}; look at traits: remove the declaration"
        )
    return f"{loss:.3f} nats; ln V is {uniform:.3f}"


def gradients(subject: Subject) -> str:
    """Checks that every parameter gets a finite gradient that is not zero, and that none is frozen or unused.

    Also checks that the units of a matrix do not stay equal, that the backward pass uses the random numbers of the
    forward pass, that activation checkpointing gives the same gradients, and that a model has parameters to train if
    traits says trainable=True, and none otherwise.
    """
    model = subject.model(perturbed=False)
    if not model.traits.trainable:
        _require_nothing_to_train(model, subject)
        return "no parameters to train, as declared"
    _require_trained_parameters(model)
    _require_gradients(model, subject)
    _require_different_units(model)
    _require_own_gradients(subject)
    require_repeatable_backward(subject)
    return f"{sum(1 for _ in model.parameters())} parameters, each with a finite gradient that is not zero"


def _require_nothing_to_train(model: LanguageModel, subject: Subject) -> None:
    """Raises `Fault` if a model that declares trainable=False has a parameter to train, or a loss with a gradient."""
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    if trained:
        raise Fault(
            f"traits says trainable=False, but {trained[0]} would be trained (requires_grad=True): make it a buffer "
            f"that fit() fills, or remove the declaration ({len(trained)} such parameters)"
        )
    if model(subject.tokens(1, 2), subject.tokens(1, 2)).loss.requires_grad:
        raise Fault(
            "traits says trainable=False, but the loss has a gradient; look at tensors with requires_grad=True "
            "that are no parameters"
        )


def _require_trained_parameters(model: LanguageModel) -> None:
    """Raises `Fault` if there is nothing to train, or if other parameters than the constants are frozen."""
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise Fault(
            "no parameter can be trained: if the model is fitted by counting, declare trainable=False in traits and "
            "define fit(tokens_BT)"
        )
    role_of = roles_by_id(model)
    for name, parameter in model.named_parameters():
        is_constant = role_of[id(parameter)] == "constant"
        if not parameter.requires_grad and not is_constant:
            raise Fault(
                f"{name} is frozen (requires_grad=False): make it a buffer if it is a constant, or declare its role as "
                "'constant' if it is drawn at random and kept"
            )
        if parameter.requires_grad and is_constant:
            raise Fault(f"{name} has the role 'constant', but is trained: set requires_grad=False")


def _require_gradients(model: LanguageModel, subject: Subject) -> None:
    """Trains the model for three steps; raises `Fault` for a gradient that is not finite, or is zero in all steps."""
    waiting = {name: p for name, p in model.named_parameters() if p.requires_grad}
    trained = list(waiting.values())
    T = min(subject.context, 16)
    for step in range(3):
        model.zero_grad()
        model.train()(subject.tokens(4, T, seed=step), subject.tokens(4, T, seed=step + 20)).loss.backward()
        for name, parameter in model.named_parameters():
            if parameter.grad is not None and not torch.isfinite(parameter.grad).all():
                raise Fault(f"the gradient of {name} is not finite in step {step} of training; look at {NOT_FINITE}")
            if parameter.grad is not None and parameter.grad.any():
                waiting.pop(name, None)
        with torch.no_grad():
            for parameter in trained:
                if parameter.grad is not None:
                    parameter.sub_(0.1 * parameter.grad)
    if waiting:
        name, parameter = next(iter(waiting.items()))
        why = "gets no gradient: nothing uses it" if parameter.grad is None else "has a gradient of zero"
        raise Fault(f"{name} {tuple(parameter.shape)} {why}, three steps in a row ({len(waiting)} such parameters)")


def _require_own_gradients(subject: Subject) -> None:
    """Raises `Fault` if a matrix has an effect in eval mode, but gets no gradient of the loss, as before an argmax.

    Float64 distinguishes a gradient that cancels from a small one: the weight of the only expert that is chosen,
    divided by itself, is 1, and its gradient is a rounding error. The gradient of an auxiliary loss does not count.
    Vectors are left out, because the bias of a router has no gradient, and so are models that declare `chooses`, which
    may train the scores of their choices in their own way.
    """
    model = subject.model().double()
    if model.traits.chooses:
        return
    idx, targets = subject.tokens(4, min(subject.context, 16)), subject.tokens(4, min(subject.context, 16), seed=1)
    backward(model(idx, targets).loss)
    role_of = roles_by_id(model)
    sizes = {name: 0.0 if p.grad is None else p.grad.abs().max().item() for name, p in model.named_parameters()}
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if role_of[id(parameter)] in ("vector", "constant") or sizes[name] > CANCELED * max(sizes.values()):
            continue
        with torch.no_grad():
            before_BTV = model(idx).logits
            parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
            if difference(model(idx).logits, before_BTV) > FLOAT64_ROUNDING:
                raise Fault(
                    f"{name} {tuple(parameter.shape)} changes the logits, but gets no gradient of the loss (at most of "
                    "an auxiliary loss); look at what it decides by argmax or top-k: multiply the result by its "
                    "probabilities, and do not divide these by their sum if only one is chosen"
                )


def _require_different_units(model: LanguageModel) -> None:
    """Raises `Fault` if all rows, or all columns, of a trained matrix are equal: equal units never become different."""
    role_of = roles_by_id(model)
    for name, parameter in model.named_parameters():
        is_matrix = role_of[id(parameter)] == "matrix" and parameter.ndim == 2 and min(parameter.shape) > 1
        if not is_matrix or not parameter.any():
            continue
        for what, first in (("rows", parameter[:1]), ("columns", parameter[:, :1])):
            if (parameter - first).abs().max() <= 1e-5 * parameter.abs().max():
                raise Fault(
                    f"all {what} of {name} {tuple(parameter.shape)} are equal, also after three steps: units with "
                    "equal initial weights get equal gradients; draw at least one of the weights around them at random"
                )


def overfitting(subject: Subject) -> str:
    """Checks that the model fits one batch, as far as its size and its declared receptive field allow.

    It is trained with Adam. A model with trainable=False is fitted by `fit`, after another text that must be forgotten.
    """
    model = subject.model(perturbed=False).train()
    T = min(subject.context, 12)
    tokens = subject.tokens(2, T + 1, seed=3)
    idx, targets = tokens[:, :-1], tokens[:, 1:]
    floor = best_loss(idx, targets, model.traits.receptive_field)
    uniform = math.log(subject.config.vocab_size)
    goal, weak_goal = (floor + (1 - covered) * (uniform - floor) for covered in (COVERED, WEAK))
    if not model.traits.trainable:
        return require_fit(subject, tokens)
    optimizer = Adam(model.parameters())
    found: list[float] = []
    for step in range(WEAK_STEPS):
        model.zero_grad()
        out = model(idx, targets).loss
        found.append(out.item())
        if step >= STEPS and not found[-1] < found[-41] - CONVERGED:
            break
        if found[-1] < goal:
            return f"{found[-1]:.2f} nats after {step} steps; the lowest loss possible is {floor:.2f}"
        out.backward()
        optimizer.step()
    if found[-1] < weak_goal:
        return f"converged at {found[-1]:.2f} nats: a weak model; the lowest loss possible is {floor:.2f}"
    raise Fault(
        f"the loss on one batch of {idx.numel()} tokens is {found[-1]:.2f} nats after {len(found)} steps of Adam: it "
        f"must fall below {goal:.2f}, or converge below {weak_goal:.2f}; look at initial weights and detached tensors"
    )


def best_loss(idx: Tensor, targets: Tensor, reach: int | None) -> float:
    """Returns the lowest possible loss: the entropy of the targets given the last `reach` tokens (None: all)."""
    counts: dict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
    for row, answers in zip(idx.tolist(), targets.tolist(), strict=True):
        for t, answer in enumerate(answers):
            start = 0 if reach is None else max(0, t + 1 - reach)
            counts[tuple(row[start : t + 1])][answer] += 1
    total = sum(n * math.log(n / seen.total()) for seen in counts.values() for n in seen.values())
    return -total / targets.numel()
