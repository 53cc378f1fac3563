"""Checks of construction, final methods, shapes, errors, and generation."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lmzoo.conformance.lengths import expected_logits
from lmzoo.conformance.measure import NOT_FINITE, require_equal, require_rows
from lmzoo.conformance.report import Fault, described, raised_at
from lmzoo.conformance.tiny import Subject
from lmzoo.errors import InputError
from lmzoo.model import LanguageModel


def construction(subject: Subject) -> str:
    """Checks that the model can be constructed from its config and has a `head`."""
    model = subject.model(perturbed=False)
    if not isinstance(getattr(model, "head", None), torch.nn.Module):
        raise Fault(
            "self.head is not set to a module: it turns features into logits (nn.Identity() if they are logits)"
        )
    return f"{type(model).__name__} with {model.num_params():,} parameters"


def finals(subject: Subject) -> str:
    """Checks that no final method of the contract (`forward`, `decode`, `generate`, ...) is overridden."""
    own = {name: value for name, value in vars(LanguageModel).items() if getattr(value, "__final__", False)}
    own |= {name: vars(torch.nn.Module)[name] for name in ("__call__", "_wrapped_call_impl", "_call_impl")}
    instance = vars(subject.instance or subject.model(perturbed=False))
    for name, value in own.items():
        if name in instance:
            raise Fault(f"{name} is replaced on the instance; the contract's {name} is final")
        found = next(vars(cls)[name] for cls in subject.cls.__mro__ if name in vars(cls))
        if found is not value:
            where = next(cls for cls in subject.cls.__mro__ if name in vars(cls))
            raise Fault(f"{where.__name__} overrides {name}, which is final: implement features() and head instead")
    return f"{len(own)} final methods, none overridden"


def shapes(subject: Subject) -> str:
    """Checks the shapes of logits and loss, with and without targets, also for one token and for a batch of no rows.

    Also checks that the ids and the targets of the caller stay unchanged.
    """
    model, V = subject.model(), subject.config.vocab_size
    for B, T in ((2, subject.context), (3, 1), (0, 2), (0, subject.context), (1, 2)):
        try:
            _require_shapes(model, subject.tokens(B, T), subject.tokens(B, T, seed=1))
        except Fault:
            raise
        except Exception as error:
            raised = f"{described(error)}{raised_at(error)}"
            raise Fault(f"idx of B = {B} rows and T = {T} tokens raises {raised}") from error
    return f"(B, T, {V}) with and without targets, for T = 1 and T = {subject.context}, for B = 0"


def _require_shapes(model: LanguageModel, idx: Tensor, some_targets: Tensor) -> None:
    """Raises `Fault` for wrong shapes or values of forward, loss and decoding on one batch."""
    (B, T), V = idx.shape, model.config.vocab_size
    given_ids = idx.clone(), some_targets.clone()
    for targets in (None, some_targets):
        logits_BTV, loss = model(idx, targets)
        if logits_BTV.shape != (B, T, V):
            given = "with" if targets is not None else "without"
            raise Fault(
                f"idx {(B, T)} {given} targets gives logits {tuple(logits_BTV.shape)}, not {(B, T, V)}; "
                "look at what features() and head return"
            )
        if not torch.isfinite(logits_BTV).all():
            raise Fault(f"idx {(B, T)} gives logits that are not finite; look at {NOT_FINITE}")
        if (loss is None) != (targets is None) or (loss is not None and loss.shape != ()):
            raise Fault(f"idx {(B, T)}: loss is {loss}, and must be a scalar exactly when targets are given")
        if loss is not None and not torch.isfinite(loss):
            raise Fault(f"idx {(B, T)}: loss is {loss.item()}, and must be finite; look at {NOT_FINITE}")
    if B:
        require_rows("a fresh state", model.init_state(B, T), B)
        logits_BV, _ = model.decode(idx, model.init_state(B, T))
        if logits_BV.shape != (B, V):
            raise Fault(
                f"decode() of idx {(B, T)} gives logits {tuple(logits_BV.shape)}, not {(B, V)}; look at what "
                "features() returns when it is given a state"
            )
    for what, ids, before in zip(("idx", "targets"), (idx, some_targets), given_ids, strict=True):
        if not torch.equal(ids, before):
            raise Fault(f"the model writes into {what}, the tensor of the caller; look at features(): work on a copy")


def edges(subject: Subject) -> str:
    """Checks that bad input raises `InputError`, and that calls at the limits work."""
    model, V, context = subject.model(), subject.config.vocab_size, subject.context
    prompt = subject.tokens(2, 3)
    bad: dict[str, Callable[[], object]] = {
        f"an id of {V}": lambda: model(torch.full((1, 2), V)),
        "an id of -1": lambda: model(torch.full((1, 2), -1)),
        f"a target of {V}": lambda: model(prompt, torch.full((2, 3), V)),
        "idx in float32": lambda: model(prompt.float()),
        "an empty chunk to decode": lambda: model.decode(prompt[:, :0], model.init_state(2, 4)),
        "an empty prompt": lambda: model.generate(prompt[:, :0], 1),
        "max_new_tokens=-1": lambda: model.generate(prompt, -1),
    }
    if not model.traits.extrapolates:
        bad[f"T={context + 1} over a context of {context}"] = lambda: model(subject.tokens(1, context + 1))
    for what, call in bad.items():
        try:
            call()
        except InputError:
            continue
        raise Fault(f"{what} is accepted, and must raise InputError")
    if not torch.equal(model.generate(prompt, 0), prompt):
        raise Fault("generate() with max_new_tokens=0 does not return the prompt")
    if model.traits.extrapolates:
        try:
            model(subject.tokens(1, context + 1))
        except Exception as error:
            raise Fault(
                f"traits says extrapolates=True, but {context + 1} tokens over a context of {context} raise "
                f"{described(error)}{raised_at(error)}; look at the positions, or at traits"
            ) from error
    return f"{len(bad)} bad calls refused; max_new_tokens=0 gives the prompt"


def generation(subject: Subject) -> str:
    """Checks that greedy generation, streamed or not, gives the argmax of `forward` on all tokens so far."""
    context, prompt = subject.context, subject.tokens(2, 3)
    n = context + 2
    for seed in range(8):
        model = subject.model(seed=seed)
        out = model.generate(prompt, n, temperature=0.0)
        if max(len(row.unique()) for row in out[:, 3:]) > 2:
            break  # a model that repeats one token could generate it without reading the prompt
    if out.shape != (2, 3 + n) or not torch.equal(out[:, :3], prompt):
        raise Fault(
            f"generate() of {n} tokens after a prompt {(2, 3)} returns {tuple(out.shape)}, not the prompt followed by "
            f"{n} tokens"
        )
    streamed = torch.stack(list(model.stream(prompt, n, temperature=0.0)), dim=1)
    if not torch.equal(streamed, out[:, 3:]):
        raise Fault("stream() returns other tokens than generate(), both with temperature=0")
    # `causality` checks that `forward` on all tokens at once gives what it gives on each beginning.
    logits_BTV = expected_logits(subject, model, out[:, :-1])[:, 2:]
    chosen_BT = logits_BTV.gather(2, out[:, 3:, None])[..., 0]
    for t, (chosen_B, best_B) in enumerate(zip(chosen_BT.T, logits_BTV.amax(2).T, strict=True), start=3):
        what = f"the logit of the token drawn at position {t}"
        require_equal(chosen_B, best_B, what, "init_state() and forward() of the layers")
    return f"{n} greedy tokens, past the context, are the argmax of forward"
