"""Checks that torch.compile captures the forward pass in one graph."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lmzoo.compiling import compiled
from lmzoo.conformance.measure import difference, require_equal
from lmzoo.conformance.report import Fault
from lmzoo.conformance.tiny import Subject
from lmzoo.model import LanguageModel

COMPILED = 1e-5  # relative to the largest value: a compiled model may fuse operations, and so round differently
LOOK = "branches on values, state kept on the module"


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
            "traits says data_dependent_shapes=True, but one graph captures forward, and no shape depends on values: "
            "remove the declaration"
        )
    if difference(found[0], logits_BTV) > COMPILED:  # torch 2.13: code of the backend "eager" for (-1.0) ** n is wrong
        found, _ = _captured(model, idx, targets, "aot_eager")
    require_equal(found[0], logits_BTV, "the compiled forward", LOOK, COMPILED)
    require_equal(found[1], loss, "the compiled loss", LOOK, COMPILED)
    return (
        "captured, with shapes that depend on values, as declared, equal to eager"
        if declared
        else "captured in one graph, equal to eager"
    )


def _captured(model: LanguageModel, idx: Tensor, targets: Tensor, backend: str) -> tuple[tuple[Tensor, Tensor], bool]:
    """Returns the logits and loss of the compiled model, and whether one graph captured it.

    Raises `Fault` if one graph cannot capture it, unless the model declares shapes that depend on values.
    """
    torch._dynamo.reset()
    # With these options torch also captures its own recurrent layers, and gradients within forward.
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
            with _without_warnings():  # torch warns about each break in the graph
                return compiled(model, backend=backend)(idx, targets), False
    finally:
        torch._dynamo.reset()


@contextmanager
def _without_warnings() -> Generator[None]:
    """Hides warnings, also those that torch's compiler logs."""
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
        # The shape that indexing gives depends on values only if the index is a mask.
        self.found |= bool(tags) and (masked or func.overloadpacket is not torch.ops.aten.index)
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def _has_dependent_shapes(model: LanguageModel, idx: Tensor) -> bool:
    """True if shapes in a forward pass depend on values. Newer versions of torch capture some of these in one graph."""
    with _DependentShapes() as shapes:
        model.features(idx)
    return shapes.found
