"""Checks for side effects: nothing is kept between calls or models, and no global state is read or changed."""

from __future__ import annotations

import random
from contextlib import suppress

import numpy as np
import torch
from torch import Tensor

from lmzoo.conformance.fitting import require_fit_in_buffers
from lmzoo.conformance.measure import FLOAT64_ROUNDING, backward, difference, require_equal, require_same_bits
from lmzoo.conformance.modes import changed_values, constructed
from lmzoo.conformance.report import Fault
from lmzoo.conformance.tiny import Subject, perturb

CACHED_TABLE = "a table that is kept on the module: it must have the dtype of the present call"
CACHED = "values that are computed from weights and kept on the module: compute them anew, or put them into the state"


def same_seed(subject: Subject) -> str:
    """Checks that the same seed gives the same model, and the same input the same logits, bitwise.

    Also checks that logits are the same under torch.no_grad(), which decoding uses.
    """
    with torch.random.fork_rng(devices=[]):
        first, second = (constructed(subject.cls, subject.config, 5) for _ in range(2))
    for (name, a), b in zip(first.state_dict().items(), second.state_dict().values(), strict=True):
        require_same_bits(b, a, f"{name}, drawn twice from one seed,", "init_parameters()")
    idx = subject.tokens(2, min(subject.context, 9))
    for model in (first, second):
        perturb(model)
    model = subject.model()
    logits_BTV = model(idx).logits
    for between in (None, subject.tokens(2, 4), subject.tokens(1, 2)):
        if between is not None:
            model(between)
            model.decode(between, model.init_state(*between.shape))
        again_BTV = model(idx).logits
        if not torch.equal(again_BTV, logits_BTV):
            where = f"state kept on the module, noise in eval{changed_values(model, subject.model())}"
            require_same_bits(again_BTV, logits_BTV, "the same forward again", where)
    where = "constants that depend on models made earlier: counters, attributes of a class"
    with torch.no_grad():
        found_BTV, expected_BTV = second.eval()(idx).logits, first.eval()(idx).logits
        require_same_bits(found_BTV, expected_BTV, "a second model from the same seed", where)
    longer = subject.tokens(2, subject.context)
    with torch.no_grad():
        found_BTV = model(longer).logits
    where = "layers that need gradients in decoding: they must use torch.enable_grad() themselves"
    require_equal(found_BTV, model(longer).logits, "forward under torch.no_grad()", where)
    _require_independent_dtypes(subject)
    return "same seed, same weights; same input, bitwise equal logits"


@torch.no_grad()
def _require_independent_dtypes(subject: Subject) -> None:
    """Raises `Fault` if a float64 model has other logits for a text whose length a float32 model has read before.

    A table that is kept for all models, by its length alone, causes this. The logits are compared with the beginning of
    a longer text. A model that sees later tokens differs there too, but for all lengths.
    """
    T = min(subject.context, 13)
    first, second = T - 6, T - 3
    if first < 1:
        return
    idx = subject.tokens(1, T, seed=8)
    narrow, wide = subject.model(), subject.model().double()
    narrow(idx[:, :first])
    logits_BTV = wide(idx).logits
    offs = [difference(wide(idx[:, :n]).logits, logits_BTV[:, :n]) for n in (first, second, second + 1)]
    if FLOAT64_ROUNDING < offs[0] <= 1e-6 and max(offs[1:]) <= FLOAT64_ROUNDING:
        raise Fault(
            f"a float64 model is off by {offs[0]:.2g} on a text of {first} tokens, a length that a float32 model has "
            f"read before, and not on one of {second} tokens; look at tables that are kept for all models: the dtype "
            "must be a part of the key"
        )


@torch.no_grad()
def changed_weights(subject: Subject) -> str:
    """Checks that a model that was used in eval mode computes with new weights, and in another dtype, at once.

    Typical faults: a product of weights, or keys and values of constant tokens, computed once and kept; a table kept in
    the dtype of its first use. Each call is repeated with new weights, and nothing runs in between: so values that are
    kept until the next call are found too.
    """
    idx = subject.tokens(2, min(subject.context, 9))
    used, other = subject.model(), subject.model(seed=3)
    first = {name: value.clone() for name, value in used.state_dict().items()}
    prompt, last = idx[:, :-1], idx[:, -1:]
    _, read_first = used.decode(prompt, used.init_state(2, 9))
    _, read = other.decode(prompt, other.init_state(2, 9))
    before_BTV, expected_BTV = used(idx).logits.clone(), other(idx).logits  # logits may be a view of weights
    used.load_state_dict(other.state_dict())
    require_same_bits(used(idx).logits, expected_BTV, "a model with new weights, after it was used,", CACHED)
    for at, tokens, old, new in (
        (-2, prompt, used.init_state(2, 9), other.init_state(2, 9)),
        (-1, last, read_first, read),
    ):
        used.load_state_dict(first)
        used.decode(tokens, old)
        used.load_state_dict(other.state_dict())
        logits_BV, _ = used.decode(tokens, new)
        require_equal(logits_BV, expected_BTV[:, at], "decoding with new weights, after earlier decoding,", CACHED)
    if torch.equal(before_BTV, expected_BTV):
        raise Fault(
            "two models with different weights give the same logits, so this check can say nothing; look at whether "
            "the parameters have an effect"
        )
    if not other.traits.trainable:
        require_fit_in_buffers(subject)
    _require_new_dtype(subject, idx)
    return "new weights in a used model give the logits of a fresh one"


def _require_new_dtype(subject: Subject, idx: Tensor) -> None:
    """Raises `Fault` if a model that has been used in bfloat16 gives other logits in float64 than one that has not."""
    used, fresh = subject.model().bfloat16(), subject.model().bfloat16().double()
    with suppress(Exception):  # what has no code for 16 bits is found by `decoding_copies`
        used(idx)
    what = "a float64 model that was used in bfloat16 before"
    require_equal(used.double()(idx).logits, fresh(idx).logits, what, CACHED_TABLE, FLOAT64_ROUNDING)


def seeds(subject: Subject) -> str:
    """Checks that two seeds give two models, and that the constructor does not set torch's global seed."""
    with torch.random.fork_rng(devices=[]):
        first, second = (constructed(subject.cls, subject.config, seed).state_dict() for seed in (1, 2))
        after = []
        for seed in (1, 2):
            torch.manual_seed(seed)
            subject.cls(subject.config)
            after.append(torch.rand(4))
    if torch.equal(*after):
        raise Fault("the constructor sets torch's global seed, so that all later random numbers are the same")
    differ = [name for name, value in first.items() if not torch.equal(value, second[name])]
    drawn = [name for name, value in first.items() if len(value.unique()) > 2]  # others start as constants
    if drawn and not differ:
        raise Fault(
            f"two seeds give the same weights ({drawn[0]} and all others); look at init_parameters(generator): it must "
            "draw from the generator that it is given"
        )
    return f"{len(differ)} of {len(first)} tensors differ between two seeds"


def global_state(subject: Subject) -> str:
    """Checks that a model neither seeds nor draws from a global generator, and leaves torch's settings unchanged.

    Also checks that running it in eval mode changes no parameter and no saved buffer.
    """
    model = subject.model(dropout=0.1)
    idx = subject.tokens(2, 5)

    def settings() -> tuple[object, ...]:
        return (torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads())

    before, drawn = settings(), _generators()
    weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    backward(model(idx, idx).loss)
    _, state = model.decode(idx, model.init_state(2, 8))
    model.decode(idx[:, :1], state)
    model.generate(idx, 2, temperature=0.0, generator=torch.Generator().manual_seed(0))
    for name, tensor in model.state_dict().items():
        if name not in weights:
            raise Fault(f"a forward pass makes {name}: make parameters and buffers in the constructor")
        if not torch.equal(tensor, weights[name]):
            raise Fault(
                f"a forward pass in eval mode changes {name}; look at what writes into it: a clamp of weights, "
                "max_norm of an embedding, statistics without self.training"
            )
    if settings() != before:
        raise Fault(
            f"torch's default dtype, grad mode and number of threads are {settings()} after forward and decoding, and "
            f"were {before}; look at torch.set_... in the model"
        )
    for name, now in _generators().items():
        if now != drawn[name]:
            raise Fault(
                f"a pass in eval mode draws from the global random state of {name}, or seeds it; look at noise without "
                "self.training, and at random numbers drawn in forward()"
            )
    model.init_weights(torch.Generator().manual_seed(0))
    for name, now in _generators().items():
        if now != drawn[name]:
            raise Fault(
                f"init_weights(generator) draws from the global random state of {name}, or seeds it; look at "
                "init_parameters(generator): it must draw from the generator that it is given"
            )
    model.train()
    with torch.random.fork_rng(devices=[]):
        after = []
        for seed in (1, 2):
            torch.manual_seed(seed)
            model(idx)
            after.append(torch.rand(4))
        if torch.equal(*after):
            raise Fault("in train mode forward sets torch's global seed, so that all later random numbers are the same")
    for name in ("random", "numpy"):
        if _generators()[name] != drawn[name]:
            raise Fault(
                f"train mode draws from the global random state of {name}, which the seed of a run does not set; use "
                "torch's generator"
            )
    return "random states, default dtype, grad mode and threads unchanged"


def _generators() -> dict[str, object]:
    """Returns the state of each global random generator."""
    return {
        "torch": tuple(torch.get_rng_state().tolist()),
        "random": random.getstate(),
        "numpy": str(np.random.get_state(legacy=False)),
    }
