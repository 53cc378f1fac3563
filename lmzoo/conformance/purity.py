"""Checks for side effects: no hidden or global state, the same forward in training and eval, one compiled graph."""

from __future__ import annotations

import logging
import random
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lmzoo.compiling import compiled
from lmzoo.conformance.fitting import require_fit_in_buffers
from lmzoo.conformance.measure import FLOAT64_ROUNDING, backward, difference, require_equal, require_same_bits
from lmzoo.conformance.modes import changed_values, constructed
from lmzoo.conformance.report import Fault
from lmzoo.conformance.tiny import Subject, perturb
from lmzoo.model import LanguageModel

COMPILED = 1e-5  # relative to the largest value: how far a compiled model may be off

CACHED = "what is computed from weights and kept on the module: compute it anew, or put it into the state"


def same_seed(subject: Subject) -> str:
    """Checks that the same seed gives the same model, and the same input the same logits, bitwise.

    Also checks that they are the same under torch.no_grad(), in which a model decodes.
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
    where = "constants that depend on the models made before: counters and attributes of a class"
    with torch.no_grad():
        found_BTV, expected_BTV = second.eval()(idx).logits, first.eval()(idx).logits
        require_same_bits(found_BTV, expected_BTV, "a second model from the same seed", where)
    longer = subject.tokens(2, subject.context)
    with torch.no_grad():
        found_BTV = model(longer).logits
    where = "what depends on gradients being on; what needs them in decoding must use torch.enable_grad() itself"
    require_equal(found_BTV, model(longer).logits, "forward under torch.no_grad()", where)
    _require_independent_dtypes(subject)
    return "same seed, same weights; same input, bitwise equal logits"


@torch.no_grad()
def _require_independent_dtypes(subject: Subject) -> None:
    """Raises `Fault` if a length that was used in float32 first gives other logits in float64, as a kept table does.

    Compared is the beginning of a longer text. A model that sees later tokens differs there, too, but also for a length
    that was used in float64 first.
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
            f"a text of {first} tokens, which was used in float32 before, is off by {offs[0]:.2g} in float64, and one "
            f"of {second} tokens is not; look at tables that are kept for all models: their dtype belongs into the key"
        )


@torch.no_grad()
def changed_weights(subject: Subject) -> str:
    """Checks that a model that has been used in eval mode takes new weights into account at once.

    Typical faults: a product of weights, or keys and values of constant tokens, computed once and kept. What is kept of
    the last call alone is found because each call is repeated with new weights, and nothing runs in between.
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
        raise Fault("two seeds give the same logits: the new weights could not be told from the old ones")
    if not other.traits.trainable:
        require_fit_in_buffers(subject)
    return "new weights in a used model give the logits of a fresh one"


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
        raise Fault("the constructor sets torch's global seed: every later draw is always the same")
    differ = [name for name, value in first.items() if not torch.equal(value, second[name])]
    drawn = [name for name, value in first.items() if len(value.unique()) > 2]  # others start as constants
    if drawn and not differ:
        raise Fault(f"two seeds give the same weights ({drawn[0]} and all others); look at init_parameters()")
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
        raise Fault(f"default dtype, grad mode or threads are {settings()} after a forward, and were {before}")
    for name, now in _generators().items():
        if now != drawn[name]:
            raise Fault(f"a pass in eval mode draws from the global random state of {name}, or seeds it")
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
            raise Fault("in train mode forward sets torch's global seed: every later draw is always the same")
    for name in ("random", "numpy"):
        if _generators()[name] != drawn[name]:
            raise Fault(f"train mode draws from the global random state of {name}: torch's seed does not repeat a run")
    return "random states, default dtype, grad mode and threads unchanged"


def _generators() -> dict[str, object]:
    return {
        "torch": tuple(torch.get_rng_state().tolist()),
        "random": random.getstate(),
        "numpy": str(np.random.get_state(legacy=False)),
    }


@contextmanager
def _without_warnings() -> Generator[None]:
    logger = logging.getLogger("torch._dynamo")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


class _DependentShapes(TorchDispatchMode):
    """Notes, while active, an operation whose output, or its shape, depends on values, such as `nonzero`."""

    found = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        masked = any(isinstance(x, Tensor) and x.dtype == torch.bool for x in tree_leaves(args[1:]))
        tags = {torch.Tag.dynamic_output_shape, torch.Tag.data_dependent_output} & {*func.tags}
        # The index of a look-up makes a shape only if it is a mask.
        self.found |= bool(tags) and (masked or func.overloadpacket is not torch.ops.aten.index)
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def _has_dependent_shapes(model: LanguageModel, idx: Tensor) -> bool:
    """True if shapes in a forward pass depend on values: newer versions of torch capture some of these in one graph."""
    with _DependentShapes() as shapes:
        model.features(idx)
    return shapes.found


def compiles(subject: Subject) -> str:
    """Checks that torch.compile captures forward in one graph with the same result.

    Typical faults: branches on tensor values, hidden state.
    """
    model = subject.model()
    idx, targets = subject.tokens(2, min(subject.context, 17)), subject.tokens(2, min(subject.context, 17), seed=1)
    logits_BTV, loss = model(idx, targets)
    declared = model.traits.data_dependent_shapes
    found, in_one_graph = _captured(model, idx, targets, "eager")
    if declared and in_one_graph and not _has_dependent_shapes(model, idx):
        raise Fault(
            "traits says data_dependent_shapes=True, but one graph captures forward, and no shape depends on values"
        )
    if difference(found[0], logits_BTV) > COMPILED:  # the code that "eager" writes for (-1.0) ** n_T is wrong
        found, _ = _captured(model, idx, targets, "aot_eager")
    require_equal(found[0], logits_BTV, "the compiled forward", "branches on values", COMPILED)
    require_equal(found[1], loss, "the compiled loss", "branches on values", COMPILED)
    return (
        "captured, with shapes that depend on values, as declared, equal to eager"
        if declared
        else "captured in one graph, equal to eager"
    )


def _captured(model: LanguageModel, idx: Tensor, targets: Tensor, backend: str) -> tuple[tuple[Tensor, Tensor], bool]:
    """Returns the logits and loss of the compiled model, and whether one graph captured it.

    Raises `Fault` if none can, unless the model declares shapes that depend on values.
    """
    torch._dynamo.reset()
    # Without these torch's own recurrent layers, and gradients within forward (test-time training), are not captured.
    options = {name: True for name in ("allow_rnn", "trace_autograd_ops") if hasattr(torch._dynamo.config, name)}
    try:
        with torch._dynamo.config.patch(options):
            try:
                return compiled(model, fullgraph=True, backend=backend)(idx, targets), True
            except Exception as error:
                if not model.traits.data_dependent_shapes:
                    reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
                    raise Fault(f"torch.compile(fullgraph=True) cannot capture forward: {reason}") from error
            torch._dynamo.reset()
            with _without_warnings():  # torch warns at each break in the graph, and while it resumes after it
                return compiled(model, backend=backend)(idx, targets), False
    finally:
        torch._dynamo.reset()
