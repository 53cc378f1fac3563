"""The values inside of layers that can be looked at: one vocabulary for all families (see docs/inspect.md).

A layer that has such values defines `offers(x_BTD, ctx)`, or `offers(x_BTD)` if it is called with x alone. It returns
them by name, computed anew for a whole sequence from the layer's input. `forward` does not call it, so it costs nothing
in normal use and changes no result; `lmzoo.inspect.record` calls it.

Legend: B batch, T time, S positions that are read (S = T), H heads, D features, E experts, K experts of a token, N
streams.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class Offer(NamedTuple):
    """A name of the vocabulary: the shape of its values, and their meaning."""

    shape: str
    meaning: str


VOCABULARY: Mapping[str, Offer] = {
    "attention.weights": Offer("(B, T, H, S)", "the weight with which head h at t reads position s; 0 for s > t"),
    "attention.window": Offer("(B, T, H, S)", "the same in a second attention that reads a window (NSA)"),
    "gates.decay": Offer(
        "(B, T, ...)",
        "the factor by which the memory, or the weight of all earlier keys, is multiplied before token t: 1 keeps, 0 "
        "forgets",
    ),
    "gates.write": Offer("(B, T, ...)", "the factor or the learning rate with which token t is written to the memory"),
    "gates.output": Offer("(B, T, ...)", "the factor of what the layer has read, before its last projection"),
    "gates.reset": Offer("(B, T, D)", "the factor of the last output in the new candidate (GRU)"),
    "gates.branch": Offer("(B, T, H, 3)", "the factors of compressed, chosen and window attention (NSA)"),
    "router.probabilities": Offer("(B, T, E)", "the probability or the share of each expert"),
    "router.chosen": Offer("(B, T, K) int64", "the experts that compute token t"),
    "router.weights": Offer("(B, T, K)", "the weights of their outputs"),
    "chunks.start": Offer("(B, T)", "the probability that token t begins a chunk; from 1/2 on, it does"),
    "streams.read": Offer("(B, T, N)", "the weight of each residual stream in what the layer reads"),
    "streams.write": Offer("(B, T, N)", "the weight with which the layer's output is added to each stream"),
}


def one_hot_values(k_BSGK: Tensor) -> Tensor:
    """Returns values (B, S, G, S) of which a weighted mean is the list of the weights, for keys (B, S, G, K).

    So an attention that is given them in place of its values returns its attention weights, whatever changes them.
    """
    B, S, G, _ = k_BSGK.shape
    one_hot_SS = torch.eye(S, dtype=k_BSGK.dtype, device=k_BSGK.device)
    return one_hot_SS[:, None].expand(B, S, G, S)


def on_other_positions(model: nn.Module, T: int) -> Iterator[nn.Module]:
    """Yields the modules that run on other positions than the T tokens, as their parent declares in `calls`."""
    for module in model.modules():
        calls: Any = getattr(module, "calls", None)
        if calls is not None:
            for name, (_, length) in calls(T).items():
                if length != T:
                    yield from module.get_submodule(name).modules()
