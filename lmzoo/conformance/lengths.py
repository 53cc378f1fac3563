"""The logits that decoding must give, and which lengths of a text can be compared.

In most models a token changes nothing at earlier positions. In a model with `same_until`, some lengths change the
positions of the whole text: there decoding must give, at each position, the logits of `forward` on the text that ends
at this position.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from lmzoo.conformance.measure import FLOAT64_ROUNDING, difference
from lmzoo.conformance.report import Fault
from lmzoo.conformance.tiny import Subject
from lmzoo.model import LanguageModel


def depends_on_length(model: LanguageModel) -> bool:
    """True if the model declares that the length of a text changes what it computes for earlier tokens."""
    return model.same_until(0) is not None


def comparable(model: LanguageModel, shorter: int, longer: int) -> bool:
    """True if a text of `shorter` tokens may grow to `longer` ones without a change of the earlier logits."""
    limit = model.same_until(shorter)
    return limit is None or limit >= longer


@torch.no_grad()
def expected_logits(subject: Subject, model: LanguageModel, idx: Tensor, ends: Collection[int] | None = None) -> Tensor:
    """Returns the logits (B, T, V) that decoding must give: of `forward`, within `context_length` if that is a limit.

    For a model with `same_until` they are computed by `forward` on the text up to each position. With `ends`, only the
    last positions of texts of these lengths are needed: the logits of others may be NaN.
    """
    T = idx.shape[1]
    if not model.traits.extrapolates:
        context = subject.context
        inside_BTV = model(idx[:, :context]).logits
        beyond = [model(idx[:, t - context + 1 : t + 1]).logits[:, -1:] for t in range(context, T)]
        return torch.cat([inside_BTV, *beyond], dim=1)
    pieces, read = list[Tensor](), 0
    while read < T:  # a piece has the texts of more than `read` tokens, up to the limit of the first of them
        limit = model.same_until(read + 1)
        end = T if limit is None else min(T, max(read + 1, limit))
        needed = ends is None or any(read < length <= end for length in ends)
        if needed or not pieces:
            pieces.append(model(idx[:, :end]).logits[:, read:])
        else:
            pieces.append(pieces[0].new_full((len(idx), end - read, pieces[0].shape[2]), torch.nan))
        read = end
    return torch.cat(pieces, dim=1) if len(pieces) > 1 else pieces[0]


@torch.no_grad()
def require_changes(model: LanguageModel, idx: Tensor, logits_BTV: Tensor, shorter: Sequence[int]) -> None:
    """Raises `Fault` if a text of no length in `shorter` has other logits than in `idx`, though `same_until` says so.

    Decoding would read all tokens again for nothing, and a leak from later tokens would pass for a declared one.
    """
    for length in shorter:
        if difference(model(idx[:, :length]).logits, logits_BTV[:, :length]) > FLOAT64_ROUNDING:
            return
    first, T = shorter[0], idx.shape[1]
    raise Fault(
        f"same_until({first}) is {model.same_until(first)}, as if a text of {T} tokens changed the logits of earlier "
        f"tokens, but it changes none: return {T} or more, or None"
    )
