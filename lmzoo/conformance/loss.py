"""Checks that the loss is the mean cross-entropy in nats over the targets that are not ignored, and nothing else."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lmzoo import losses
from lmzoo.conformance.measure import ROUNDING, backward, difference, float32_hint, require_equal
from lmzoo.conformance.report import Fault, described, raised_at
from lmzoo.conformance.tiny import Subject
from lmzoo.losses import IGNORE_INDEX
from lmzoo.model import LanguageModel

LOOK = "forward(), which must be the one of LanguageModel"
TIGHT = 1e-5  # relative to the largest value: both sides compute the same sums of float32, in another order


def loss_value(subject: Subject) -> str:
    """Checks that the loss is the cross-entropy of the model's logits: not shifted again, not summed, nothing added."""
    model = subject.model()
    idx, targets = subject.tokens(3, 7), subject.tokens(3, 7, seed=1)
    logits_BTV, loss = model(idx, targets)
    expected = F.cross_entropy(logits_BTV.flatten(0, 1), targets.flatten())
    require_equal(loss, expected, "the loss", LOOK, TIGHT)
    require_equal(model(idx).logits, logits_BTV, "logits without targets, against those with them,", LOOK, TIGHT)
    one = targets.clone()
    one[:, :-1] = IGNORE_INDEX  # only the last position counts, which a loss that shifts the targets again leaves out
    require_equal(
        model(idx, one).loss, F.cross_entropy(logits_BTV[:, -1], one[:, -1]), "the last position's loss", LOOK, TIGHT
    )
    return f"{loss.item():.3f} nats: the cross-entropy of the logits"


def ignored_targets(subject: Subject) -> str:
    """Checks that ignored targets count neither in the loss nor in a gradient, and that the loss is 0 if all are."""
    model = subject.model()
    idx, targets = subject.tokens(2, 6), subject.tokens(2, 6, seed=1)
    targets[0, 3:] = IGNORE_INDEX
    logits_BTV, loss = model(idx, targets)
    kept = targets != IGNORE_INDEX
    expected = F.cross_entropy(logits_BTV[kept], targets[kept])
    require_equal(loss, expected, f"the loss over {int(kept.sum())} of {targets.numel()} targets", LOOK, TIGHT)

    # All of row 1 is ignored: its tokens must not affect any gradient.
    targets[1] = IGNORE_INDEX
    gradients = _gradients(model, idx, targets)
    other = idx.clone()
    other[1] = (other[1] + 1) % subject.config.vocab_size
    for (name, gradient), changed in zip(gradients.items(), _gradients(model, other, targets).values(), strict=True):
        require_equal(changed, gradient, f"the gradient of {name}, when only an ignored row has changed,", LOOK, TIGHT)

    nothing = torch.full_like(targets, IGNORE_INDEX)
    for return_logits in (True, False):
        loss = model(idx, nothing, return_logits=return_logits).loss
        if loss.item() != 0:
            raise Fault(f"the loss with all targets ignored is {loss.item()}, and must be 0; look at {LOOK}")
    return "ignored targets have no effect; the loss is 0 if all are ignored"


def micro_batches(subject: Subject) -> str:
    """Checks that loss and gradients of a batch are the means over its parts, weighted by their number of targets."""
    model = subject.model()
    idx, targets = subject.tokens(4, 6), subject.tokens(4, 6, seed=1)
    targets[0, 1:] = IGNORE_INDEX  # so the two parts have 7 and 6 targets
    targets[3, :] = IGNORE_INDEX
    whole = _gradients(model, idx, targets)
    whole_loss = model(idx, targets).loss
    total = int((targets != IGNORE_INDEX).sum())
    parts = {name: torch.zeros_like(gradient) for name, gradient in whole.items()}
    parts_loss = torch.zeros(())
    for rows in (slice(0, 2), slice(2, 4)):
        share = int((targets[rows] != IGNORE_INDEX).sum()) / total
        parts_loss = parts_loss + share * model(idx[rows], targets[rows]).loss.detach()
        for name, gradient in _gradients(model, idx[rows], targets[rows]).items():
            parts[name] += share * gradient
    require_equal(parts_loss, whole_loss, "the loss of two micro-batches, weighted by their targets,", LOOK, TIGHT)
    for name, gradient in whole.items():
        off = difference(parts[name], gradient)
        look = LOOK if off <= ROUNDING else f"{LOOK}{float32_hint(lambda: subject.model().double()(idx))}"
        require_equal(parts[name], gradient, f"the gradient of {name} over two micro-batches", look)
    return f"two unequal micro-batches of {total} targets add up to the whole"


def chunked_loss(subject: Subject) -> str:
    """Checks that `return_logits=False`, and the loss computed in chunks, give the same value and gradients."""
    model = subject.model()
    idx, targets = subject.tokens(2, 7), subject.tokens(2, 7, seed=1)
    targets[1, 2] = IGNORE_INDEX
    logits_BTV, loss = model(idx, targets)
    without = model(idx, targets, return_logits=False)
    if logits_BTV is None or without.logits is not None:
        raise Fault(f"return_logits=False must return no logits, and True must; look at {LOOK}")
    require_equal(without.loss, loss, "the loss without logits", LOOK, TIGHT)
    plain = _gradients(model, idx, targets)
    for name, gradient in _gradients(model, idx, targets, return_logits=False).items():
        require_equal(gradient, plain[name], f"the gradient of {name} without logits", LOOK, TIGHT)
    x_BTD, _ = model.features(idx)
    for chunk in (1, 3, 14):
        chunked = losses.chunked_cross_entropy(x_BTD, model.head, targets, chunk=chunk)
        require_equal(chunked, loss, f"the loss in chunks of {chunk}", "head: it must treat each position alone", TIGHT)
    return "the same loss and gradients without logits, and in chunks of 1, 3 and 14"


def auxiliary(subject: Subject) -> str:
    """Checks that auxiliary losses are finite scalars with gradients, and are not part of the reported loss.

    Also checks that they stay finite when targets are ignored, and for a single token, and that ignored targets do not
    count in one that reads targets.
    """
    model, T = subject.model().train(), min(subject.context, 16)
    idx, targets = subject.tokens(4, T), subject.tokens(4, T, seed=1)
    named = _auxiliary(model, idx, targets)
    parameters = list(model.parameters())
    for name, value in named.items():
        if value.shape != () or not torch.isfinite(value):
            raise Fault(
                f"auxiliary loss {name!r} is {value.tolist()} of shape {tuple(value.shape)}, and must be a finite "
                "scalar; look at auxiliary_loss() and extra_losses()"
            )
        if not value.requires_grad:
            raise Fault(
                f"auxiliary loss {name!r} has no gradient: it is detached, or made of choices (argmax, top-k, counts) "
                "alone; multiply the counts by the probabilities"
            )
        gradients = torch.autograd.grad(value, parameters, allow_unused=True, retain_graph=True)
        found = [gradient for gradient in gradients if gradient is not None]
        if not all(torch.isfinite(gradient).all() for gradient in found):
            raise Fault(f"the gradient of auxiliary loss {name!r} is not finite")
        if not any(gradient.any() for gradient in found):
            raise Fault(f"the gradient of auxiliary loss {name!r} is zero for every parameter")
    logits_BTV, loss = model(idx, targets)
    expected = F.cross_entropy(logits_BTV.flatten(0, 1), targets.flatten())
    require_equal(loss, expected, "the loss in train mode", "what is added to it: use auxiliary_loss()", TIGHT)
    if not named:
        return "no auxiliary losses; the loss in train mode is the cross-entropy"
    some, nothing = targets.clone(), torch.full_like(targets, IGNORE_INDEX)
    some[0, T // 2 :] = some[1] = IGNORE_INDEX
    for what, n, fewer in (
        ("with some targets ignored", T, some),
        ("with all targets ignored", T, nothing),
        ("with a single token and its target", 1, targets),
    ):
        try:
            values = _auxiliary(model, idx[:, :n], fewer[:, :n])
        except Exception as error:
            raise Fault(f"{what}, the auxiliary losses raise {described(error)}{raised_at(error)}") from error
        for name, value in values.items():
            found = torch.autograd.grad(value, parameters, allow_unused=True, retain_graph=True)
            if not all(torch.isfinite(x).all() for x in (value, *found) if x is not None):
                raise Fault(
                    f"auxiliary loss {name!r} or its gradient is not finite {what}; look at its mean: "
                    "losses.cross_entropy() is 0 over no targets"
                )
    if not model.traits.random_in_training:
        _require_ignored(model, idx, targets, named)
    return f"{', '.join(sorted(named))}: finite, with gradients, and not in the reported loss"


def _require_ignored(model: LanguageModel, idx: Tensor, targets: Tensor, named: dict[str, Tensor]) -> None:
    """Raises `Fault` if an auxiliary loss that reads targets changes with a row whose targets are all ignored."""
    changed = _auxiliary(model, idx, (targets + 1) % model.config.vocab_size)
    reading = [name for name, value in named.items() if difference(changed[name], value) > TIGHT]
    if not reading:
        return
    one, two = targets[:1], targets[:2].clone()
    two[1] = IGNORE_INDEX
    alone, beside = _auxiliary(model, idx[:1], one), _auxiliary(model, idx[:2], two)
    for name in reading:
        what = f"auxiliary loss {name!r}, which reads targets, of a row beside one whose targets are all ignored,"
        where = "its mean: only over targets that are not IGNORE_INDEX, as losses.cross_entropy() does it"
        require_equal(beside[name], alone[name], what, where, TIGHT)


def _auxiliary(model: LanguageModel, idx: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Returns the auxiliary losses of a model in train mode by name."""
    with losses.collect_auxiliary(True) as named:
        x_BTD, _ = model.features(idx)
    return named | model.extra_losses(x_BTD, idx, targets)


def _gradients(model: LanguageModel, idx: Tensor, targets: Tensor, *, return_logits: bool = True) -> dict[str, Tensor]:
    """Returns the gradient of the loss for every parameter by name; zero where there is none."""
    model.zero_grad(set_to_none=True)
    backward(model(idx, targets, return_logits=return_logits).loss)
    found = {
        name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone()
        for name, parameter in model.named_parameters()
    }
    model.zero_grad(set_to_none=True)
    return found
