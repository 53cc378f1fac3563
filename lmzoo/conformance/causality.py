"""Does it see the future? And does it see as much of the past as it says?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from lmzoo.conformance.measure import ROUNDING, difference, first_position
from lmzoo.conformance.report import Fault
from lmzoo.conformance.tiny import Subject
from lmzoo.model import LanguageModel

LEAK = "what mixes positions: a mask, a padding, a norm or a mean over time, a router"


def lengths(subject: Subject, model: LanguageModel) -> list[int]:
    """The full context, and beyond two chunks of any scan for a model that goes on."""
    return [subject.context, 2 * subject.context + 3] if model.traits.extrapolates else [subject.context]


def causality(subject: Subject) -> str:
    """Logits that change when only later tokens change, or when later tokens are left out; in eval and train mode.

    Not a bit may change, unless the model declares a `causal_tolerance`; one that nothing needs is refused too.
    """
    seen: list[int] = []
    worst = 0.0
    for training in (False, True):
        model = subject.model(dropout=0.1 if training else 0.0).train(training)
        for T in lengths(subject, model):
            idx = subject.tokens(2, T)
            other = (
                idx + 1 + subject.tokens(2, T, seed=1) % (subject.config.vocab_size - 1)
            ) % subject.config.vocab_size
            logits_BTV = _seeded(model, idx)
            for cut in range(T - 1, 0, -1):
                changed_BTV = _seeded(model, torch.cat([idx[:, :cut], other[:, cut:]], dim=1))
                off, allowed = difference(changed_BTV[:, :cut], logits_BTV[:, :cut]), model.traits.causal_tolerance
                worst = max(worst, off)
                if off > allowed:
                    place = first_position(changed_BTV[:, :cut], logits_BTV[:, :cut], allowed)
                    mode = "train" if training else "eval"
                    raise Fault(
                        f"in {mode} mode, changing the tokens from position {cut} of {T} on changes the logits at "
                        f"{place} by {off:.2g}; look at {LEAK}"
                    )
                if not training:
                    short_BTV = _seeded(model, idx[:, :cut])
                    off = difference(short_BTV, logits_BTV[:, :cut])
                    if off > ROUNDING:
                        place = first_position(short_BTV, logits_BTV[:, :cut], ROUNDING)
                        raise Fault(
                            f"leaving out the tokens from position {cut} of {T} on changes the logits at {place} by "
                            f"{off:.2g}; look at what depends on the length: {LEAK}"
                        )
            seen.append(T)
    tolerance = subject.model().traits.causal_tolerance
    if tolerance and not worst:
        raise Fault(f"causal_tolerance={tolerance:g} is declared, and not a bit changes; look at traits: leave it out")
    kept = f"off by {worst:.2g} of {tolerance:g} allowed" if tolerance else "the same bits"
    return f"every cut of T = {sorted(set(seen))}, train and eval: {kept} before the cut"


def gradient_causality(subject: Subject) -> str:
    """A gradient that reaches from a logit to a later token's embedding, where values may hide it."""
    model = subject.model()
    T = lengths(subject, model)[0]
    idx = subject.tokens(1, T)
    with _Embeddings(idx) as embeddings:
        logits_BTV = model(idx).logits
    if not embeddings.found:
        return "tokens are not looked up by an embedding: nothing to differentiate by; values were checked"
    weights_V = torch.linspace(-1, 1, logits_BTV.shape[-1])
    for t in range(T - 1):
        gradients = torch.autograd.grad(
            (logits_BTV[0, t] * weights_V).sum(), embeddings.found, retain_graph=True, allow_unused=True
        )
        for gradient in gradients:
            if gradient is None:
                continue
            after = gradient[0, gradient.shape[1] - T + t + 1 :].flatten(1).abs().amax(1)
            allowed = model.traits.causal_tolerance * gradient.abs().max()
            if (after > allowed).any():
                later = int((after > allowed).nonzero()[0])
                where = f"the logits at {t} to the token at {later + t + 1}"
                raise Fault(f"the gradient of {where} is {after[later].item():.2g}; look at {LEAK}")
    least = "within the declared tolerance" if model.traits.causal_tolerance else "exactly zero"
    return f"gradients of {T - 1} positions to later tokens are {least}"


def receptive_field(subject: Subject) -> str:
    """A model that ignores a part of its past, or sees further back than it declares."""
    model = subject.model().double()
    declared = model.traits.receptive_field
    context = subject.context
    T = context if not model.traits.extrapolates else max(context, (declared or 0) + 3)
    reach = T if declared is None else min(declared, T)
    idx = subject.tokens(1, T)
    V = subject.config.vocab_size
    for distance in range(min(T, reach + 3)):
        swapped_BT = idx.repeat(V - 1, 1)
        swapped_BT[:, T - 1 - distance] = (idx[0, T - 1 - distance] + torch.arange(1, V)) % V
        # The unchanged row is in the same batch: the comparison is free of rounding.
        last_BV = model(torch.cat([idx, swapped_BT])).logits[:, -1]
        effect = (last_BV[1:] - last_BV[0]).abs().max().item()
        if distance < reach and effect == 0:
            says = "declares no receptive_field" if declared is None else f"declares receptive_field={declared}"
            raise Fault(
                f"the logits at {T - 1} do not depend on the token {distance} back, though the model {says}; "
                "look at how far the past is carried, or declare it in traits"
            )
        if distance >= reach and effect > 1e-9:
            raise Fault(
                f"the logits at {T - 1} depend on the token {distance} back (by {effect:.2g}), beyond the declared "
                f"receptive_field={declared} (the present token included); look at the window, or at traits"
            )
    beyond = "" if declared is None else f", none beyond {declared}"
    return f"each of the last {reach} tokens matters{beyond}"


def _seeded(model: LanguageModel, idx: Tensor) -> Tensor:
    """Logits with the same dropout at every call."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        return model(idx).logits


class _Embeddings(TorchFunctionMode):
    """While active, keeps every embedding looked up for `idx`, however the model spells it."""

    def __init__(self, idx: Tensor) -> None:
        self.idx = idx
        self.found: list[Tensor] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is F.embedding and args[0].ndim == 2 and torch.equal(args[0][:, -self.idx.shape[1] :], self.idx):
            self.found.append(out)  # what stands before idx is padding
        return out
