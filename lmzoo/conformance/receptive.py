"""Checks that logits depend on earlier positions as far as the model declares, and on none before."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from lmzoo.conformance import masks
from lmzoo.conformance.measure import FLOAT64_ROUNDING
from lmzoo.conformance.reach import require_no_fixed_reach
from lmzoo.conformance.report import Fault
from lmzoo.conformance.tiny import Subject
from lmzoo.model import LanguageModel

BLOCKS = 6  # times the context of 24 tokens: more than two blocks of 64


def receptive_field(subject: Subject) -> str:
    """Checks that logits depend on tokens as far back as the model declares, and on none before.

    Some tokens within reach may have no effect (strides, delays). Which tokens have one may depend on the position
    (blocks) and on the text (look-up by content): so all positions of several texts are tried. Tokens before a declared
    receptive field must have no effect with weights 1000 times as large either.
    """
    model = subject.model().double()
    declared = model.traits.receptive_field
    T = subject.context if not model.traits.extrapolates else max(subject.context, 2 * (declared or 0))
    try:
        seen = _require_field(subject, model, declared, T)
    except Fault:
        if declared is not None or not model.traits.extrapolates:
            raise
        # A model may see the past only after a whole block, for example of 32 tokens.
        seen = _require_field(subject, model, declared, BLOCKS * subject.context)
    if declared is not None:
        masks.require_window(subject, declared, T)
    elif model.traits.extrapolates and model.traits.trainable:
        # The context length may set one.
        texts = [subject.tokens(5, BLOCKS * subject.context + more) for more in (0, 13)]
        require_no_fixed_reach(model, texts, subject.context // 2)
    return seen


def _require_field(subject: Subject, model: LanguageModel, declared: int | None, T: int) -> str:
    """Checks the declared receptive field on texts of T tokens."""
    reach = T if declared is None else min(declared, T)
    # Without a declaration one token of the farther half must have an effect: the farthest may lie in a gap.
    far = range(T // 2, T) if declared is None else range(max(0, reach - 1), reach)
    says = "declares no receptive_field" if declared is None else f"declares receptive_field={declared}"
    found: set[int] = set()
    for text in _texts(subject, T):
        effect_T = _effect_by_distance(model, text, subject.config.vocab_size)
        if (effect_T[reach:] > FLOAT64_ROUNDING).any():
            distance = reach + int((effect_T[reach:] > FLOAT64_ROUNDING).nonzero()[0])
            raise Fault(
                f"logits depend on the token {distance} back (by {effect_T[distance].item():.2g}), though the model "
                f"{says} (the present token included; the sum over layers of `reach - 1`, plus one); look at the "
                "window, at `reach`, or at traits"
            )
        found |= set(effect_T[:reach].nonzero().flatten().tolist())
        if found & set(far) or not reach:
            break
    else:
        last = max(found, default=None)
        back = f"no token more than {last} back" if last is not None else "any token"
        raise Fault(
            f"logits depend on {back}, though the model {says}; look at how far the past is carried, or declare it in "
            "traits"
        )
    gaps = sorted(set(range(reach)) - found)
    ignored = f", but not {', '.join(map(str, gaps[:6]))} back" if gaps else ""
    beyond = "" if declared is None else f", none beyond {declared}"
    return f"logits depend on the last {reach} tokens{ignored}{beyond}" if reach else "logits depend on no token"


def _texts(subject: Subject, T: int) -> Iterator[Tensor]:
    """Yields texts (1, T) of the whole vocabulary, and of two or three different tokens, in which patterns repeat."""
    for seed in range(8):
        text = subject.tokens(1, T, seed=seed)
        yield text if seed % 2 == 0 else text % (2 + seed % 4 // 2)


def _effect_by_distance(model: LanguageModel, idx: Tensor, V: int) -> Tensor:
    """Returns the largest change of logits (T,) when a token is replaced, by its distance from the changed logits."""
    T = idx.shape[1]
    swaps = min(V - 1, 4)
    places_B = torch.arange(T).repeat_interleave(swaps)
    swapped_BT = idx.repeat(T * swaps, 1)
    added_B = (1 + torch.arange(T * swaps) % swaps * max(1, (V - 1) // swaps)).clamp(max=V - 1)
    swapped_BT[torch.arange(len(swapped_BT)), places_B] = (idx[0, places_B] + added_B) % V
    # The unchanged row is in the same batch, so that rounding is the same.
    with torch.no_grad():
        logits_BTV = model(torch.cat([idx, swapped_BT])).logits
    effect_BT = (logits_BTV[1:] - logits_BTV[0]).abs().amax(2)
    effect_TT = effect_BT.view(T, swaps, T).amax(1)  # of the token at each place, on the logits at each position
    return torch.stack([effect_TT.diagonal(distance).amax() for distance in range(T)])
