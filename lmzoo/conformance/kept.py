"""Finds vectors that lose too much in 16 bits, such as decays close to 1, far along a text."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lmzoo.conformance.choices import Choices
from lmzoo.conformance.report import Fault
from lmzoo.conformance.tiny import Subject
from lmzoo.model import LanguageModel

TIMES = 4.0  # above the ratio of both effects in sound models
LEAST = 0.02  # of the largest logit: smaller errors are usual with weights in 16 bits


@torch.no_grad()
def require_vectors_kept(subject: Subject) -> None:
    """Raises `Fault` if rounding the initial vectors to bfloat16 changes logits much more than rounding the matrices.

    It is tried on the large form: a share of a memory of 0.9995 becomes 1 in bfloat16, which changes logits in long
    texts only. Parameters that a layer names in `keep_float32` are not rounded.
    """
    form = subject.large()[0]
    model = form.model(perturbed=False).double()
    idx = form.tokens(2, form.context)
    choices = Choices(model)
    with choices.recorded():
        exact_BTV = model(idx).logits
    kept = {
        id(getattr(module, name, None)) for module in model.modules() for name in getattr(module, "keep_float32", ())
    }
    vectors = {id(p) for group in model.parameter_groups(0.0) if group["role"] == "vector" for p in group["params"]}
    rounded = [p for p in model.parameters() if id(p) not in kept]
    by_vectors, by_matrices = (
        _effect(model, idx, exact_BTV, choices, [p for p in rounded if (id(p) in vectors) is wanted])
        for wanted in (True, False)
    )
    if by_vectors > max(LEAST, TIMES * by_matrices):
        raise Fault(
            f"rounding the initial vectors to bfloat16 changes logits by {by_vectors:.0%} of the largest one at "
            f"{idx.shape[1]} tokens, and rounding the matrices by {by_matrices:.1%}; look at values close to 1, such "
            "as decays: name the parameter in keep_float32, or learn its logarithm"
        )


def _effect(
    model: LanguageModel, idx: Tensor, exact_BTV: Tensor, choices: Choices, parameters: list[nn.Parameter]
) -> float:
    """Returns the change of the logits by rounding `parameters`: its median over positions, over the largest logit."""
    before = [parameter.clone() for parameter in parameters]
    for parameter in parameters:
        parameter.copy_(parameter.bfloat16())
    with choices.repeated("a model with weights rounded to bfloat16"):
        off_BT = (model(idx).logits - exact_BTV).abs().amax(-1)
    for parameter, values in zip(parameters, before, strict=True):
        parameter.copy_(values)
    return off_BT.median().item() / max(exact_BTV.abs().max().item(), torch.finfo(exact_BTV.dtype).tiny)
