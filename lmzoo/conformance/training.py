"""Checks that a model can be trained from its initial weights, with all of its parameters."""

from __future__ import annotations

import math
from collections import Counter, defaultdict

import torch
from torch import Tensor

from lmzoo.conformance.adam import Adam
from lmzoo.conformance.fitting import require_fit
from lmzoo.conformance.measure import FLOAT64_ROUNDING, backward, difference
from lmzoo.conformance.presets import widest_preset
from lmzoo.conformance.recomputation import require_repeatable_backward
from lmzoo.conformance.report import Fault
from lmzoo.conformance.tiny import Subject
from lmzoo.model import LanguageModel

START_TOLERANCE = 0.05  # of ln V
STEPS = 120
WEAK_STEPS = 600  # for a model that is still learning after STEPS
COVERED = 0.6  # share of the way from ln V down to the lowest loss possible on the batch
CANCELED = 1e-12  # of the largest gradient of a parameter: what cancels leaves rounding of float64
WEAK = 0.3  # the same for a model that has converged: it may be too small to reach more
CONVERGED = 0.02  # nats: the most that the loss of a converged model falls in 40 steps


def initial_loss(subject: Subject) -> str:
    """Checks that the loss with initial weights is near ln V exactly if traits says uniform_at_start=True.

    If it does, the loss of the widest preset must be near ln V, too.
    """
    found = [_initial_loss(subject, seed) for seed in range(1 if subject.is_variant else 3)]
    seen = _require_declared_start(subject, found)
    wide = None if subject.is_variant else widest_preset(subject)
    if wide is not None and wide.model(perturbed=False).traits.uniform_at_start:
        wide.is_variant = True  # one that is near without a declaration is accepted
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
            f"traits says uniform_at_start=False, but the loss of a fresh model is {loss:.3f}, ln V = {uniform:.3f}"
        )
    return f"{loss:.3f} nats; ln V is {uniform:.3f}"


def gradients(subject: Subject) -> str:
    """Checks that every parameter gets a finite gradient that is not zero, and that none is frozen or unused.

    Also checks that the units of a matrix do not stay equal, that the backward pass draws no other random numbers than
    the forward pass, that activation checkpointing gives the same gradients, and that there is a parameter to train
    exactly if traits says trainable=True.
    """
    model = subject.model(perturbed=False)
    trained_names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    if not model.traits.trainable:
        if trained_names:
            raise Fault(
                f"traits says trainable=False, but {trained_names[0]} would be trained (requires_grad=True): make it a "
                f"buffer that fit() fills, or remove the declaration ({len(trained_names)} such parameters)"
            )
        if model(subject.tokens(1, 2), subject.tokens(1, 2)).loss.requires_grad:
            raise Fault("traits says trainable=False, but the loss has a gradient: a tensor outside the parameters")
        return "no parameters to train, as declared"
    if not trained_names:
        raise Fault(
            "no parameter can be trained: if the model is fitted by counting, declare trainable=False in traits and "
            "define fit(tokens_BT)"
        )
    constants = {id(p) for group in model.parameter_groups(0.0) if group["role"] == "constant" for p in group["params"]}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad and id(parameter) not in constants:
            raise Fault(
                f"{name} is frozen (requires_grad=False): make it a buffer if it is a constant, or declare its role as "
                "'constant' if it is drawn at random and kept"
            )
        if parameter.requires_grad and id(parameter) in constants:
            raise Fault(f"{name} has the role 'constant', but is trained: set requires_grad=False")
    waiting = {name: p for name, p in model.named_parameters() if p.requires_grad}
    trained = list(waiting.values())
    T = min(subject.context, 16)
    for step in range(3):
        model.zero_grad()
        model.train()(subject.tokens(4, T, seed=step), subject.tokens(4, T, seed=step + 20)).loss.backward()
        for name, parameter in model.named_parameters():
            if parameter.grad is not None and not torch.isfinite(parameter.grad).all():
                raise Fault(f"the gradient of {name} is not finite in step {step}")
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
    _require_different_units(model)
    _require_own_gradients(subject)
    require_repeatable_backward(subject)
    return f"{sum(1 for _ in model.parameters())} parameters, each with a finite gradient that is not zero"


def _require_own_gradients(subject: Subject) -> None:
    """Raises `Fault` if a matrix acts in eval mode, and the loss gives it no gradient, as behind an argmax.

    In float64, where a gradient that cancels is told from a small one: the weight of the only expert that is chosen,
    divided by itself, has the value 1 and a gradient of rounding. An auxiliary loss may give such a matrix a gradient.
    The bias of a router is a vector, and a model that declares `chooses` may train what it chooses by on its own.
    """
    model = subject.model().double()
    if model.traits.chooses:
        return
    idx, targets = subject.tokens(4, min(subject.context, 16)), subject.tokens(4, min(subject.context, 16), seed=1)
    backward(model(idx, targets).loss)
    roles = {id(p): group["role"] for group in model.parameter_groups(0.0) for p in group["params"]}
    sizes = {name: 0.0 if p.grad is None else p.grad.abs().max().item() for name, p in model.named_parameters()}
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if roles[id(parameter)] in ("vector", "constant") or sizes[name] > CANCELED * max(sizes.values()):
            continue
        with torch.no_grad():
            before_BTV = model(idx).logits
            parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
            if difference(model(idx).logits, before_BTV) > FLOAT64_ROUNDING:
                raise Fault(
                    f"{name} {tuple(parameter.shape)} changes the logits, but the loss gives it no gradient (at most "
                    "an auxiliary loss does); look at what it decides by argmax or top-k: multiply by its "
                    "probabilities, and do not divide these by the sum of those that are chosen if it is only one"
                )


def _require_different_units(model: LanguageModel) -> None:
    """Raises `Fault` if all rows, or all columns, of a trained matrix are equal: units that start equal stay equal."""
    matrices = {id(p) for group in model.parameter_groups(0.0) if group["role"] == "matrix" for p in group["params"]}
    for name, parameter in model.named_parameters():
        if id(parameter) not in matrices or parameter.ndim != 2 or min(parameter.shape) < 2 or not parameter.any():
            continue
        for what, first in (("rows", parameter[:1]), ("columns", parameter[:, :1])):
            if (parameter - first).abs().max() <= 1e-5 * parameter.abs().max():
                raise Fault(
                    f"all {what} of {name} {tuple(parameter.shape)} are equal, also after three steps: units with "
                    "equal initial weights get equal gradients; draw at least one of the weights around them at random"
                )


def overfitting(subject: Subject) -> str:
    """Checks that the model fits one batch, as far as its size and its declared receptive field allow.

    Adam trains it; a model with trainable=False is fitted by `fit`, after another text that it must forget.
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
        f"one batch of {idx.numel()} tokens is at {found[-1]:.2f} nats after {len(found)} steps of Adam, not below "
        f"{goal:.2f}, nor converged below {weak_goal:.2f}"
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
