"""Checks that a model can be trained from its initial weights, with all of its parameters."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from lmzoo.conformance.report import Fault
from lmzoo.conformance.tiny import Subject

START_TOLERANCE = 0.05  # of ln V
STEPS = 120
WEAK_STEPS = 600  # for a model that is still learning after STEPS
COVERED = 0.6  # share of the way from ln V down to the lowest loss possible on the batch
WEAK = 0.3  # the same for a model that has converged: it may be too small to reach more
CONVERGED = 0.02  # nats: the most that the loss of a converged model falls in 40 steps


def initial_loss(subject: Subject) -> str:
    """Checks that the loss with initial weights is near ln V exactly if traits says uniform_at_start=True."""
    uniform = math.log(subject.config.vocab_size)
    found: list[float] = []
    declared = True
    for seed in range(3):
        model = subject.model(perturbed=False, seed=seed)
        declared = model.traits.uniform_at_start
        idx = subject.tokens(8, min(subject.context, 16), seed=seed)
        targets = subject.tokens(*idx.shape, seed=seed + 10)
        with torch.no_grad():
            found.append(model(idx, targets).loss.item())
    loss = max(found, key=lambda value: abs(value - uniform))
    near = abs(loss - uniform) <= START_TOLERANCE * uniform
    if declared and not near:
        raise Fault(
            f"the loss of a fresh model is {loss:.3f}, more than 5 % from ln V = {uniform:.3f}; "
            "look at the initial weights of the head and at the scale of its input"
        )
    if near and not declared:
        raise Fault(
            f"traits says uniform_at_start=False, but the loss of a fresh model is {loss:.3f}, ln V = {uniform:.3f}"
        )
    return f"{loss:.3f} nats; ln V is {uniform:.3f}"


def gradients(subject: Subject) -> str:
    """Checks that every parameter gets a finite gradient that is not zero, and that none is frozen or unused."""
    model = subject.model(perturbed=False)
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
    for step in range(3):
        T = min(subject.context, 16)
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
    return f"{sum(1 for _ in model.parameters())} parameters, each with a finite gradient that is not zero"


def overfitting(subject: Subject) -> str:
    """Checks that the model fits one batch, as far as its size and its declared receptive field allow."""
    model = subject.model(perturbed=False).train()
    T = min(subject.context, 12)
    tokens = subject.tokens(2, T + 1, seed=3)
    idx, targets = tokens[:, :-1], tokens[:, 1:]
    floor = best_loss(idx, targets, model.traits.receptive_field)
    uniform = math.log(subject.config.vocab_size)
    goal, weak_goal = (floor + (1 - covered) * (uniform - floor) for covered in (COVERED, WEAK))
    optimizer = _Adam(model.parameters())
    losses: list[float] = []
    for step in range(WEAK_STEPS):
        model.zero_grad()
        out = model(idx, targets).loss
        losses.append(out.item())
        if step >= STEPS and not losses[-1] < losses[-41] - CONVERGED:
            break
        if losses[-1] < goal:
            return f"{losses[-1]:.2f} nats after {step} steps; the lowest loss possible is {floor:.2f}"
        out.backward()
        optimizer.step()
    if losses[-1] < weak_goal:
        return f"converged at {losses[-1]:.2f} nats: a weak model; the lowest loss possible is {floor:.2f}"
    raise Fault(
        f"one batch of {idx.numel()} tokens is at {losses[-1]:.2f} nats after {len(losses)} steps of Adam, not below "
        f"{goal:.2f}, nor converged below {weak_goal:.2f}"
    )


class _Adam:
    """Adam with a learning rate of 0.01. torch's own imports torch's compiler, which takes seconds."""

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self._parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self._mean = [torch.zeros_like(parameter) for parameter in self._parameters]
        self._square = [torch.zeros_like(parameter) for parameter in self._parameters]
        self._steps = 0

    @torch.no_grad()
    def step(self) -> None:
        self._steps += 1
        for parameter, mean, square in zip(self._parameters, self._mean, self._square, strict=True):
            if parameter.grad is not None:
                mean.lerp_(parameter.grad, 1 - 0.9)
                square.lerp_(parameter.grad.square(), 1 - 0.999)
                mean_hat, square_hat = mean / (1 - 0.9**self._steps), square / (1 - 0.999**self._steps)
                parameter.sub_(0.01 * mean_hat / (square_hat.sqrt() + 1e-8))


def best_loss(idx: Tensor, targets: Tensor, reach: int | None) -> float:
    """Returns the lowest possible loss: the entropy of the targets given the last `reach` tokens (None: all)."""
    counts: dict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
    for row, answers in zip(idx.tolist(), targets.tolist(), strict=True):
        for t, answer in enumerate(answers):
            start = 0 if reach is None else max(0, t + 1 - reach)
            counts[tuple(row[start : t + 1])][answer] += 1
    total = sum(n * math.log(n / seen.total()) for seen in counts.values() for n in seen.values())
    return -total / targets.numel()
