"""Measures time (forward and backward) and peak memory of the loss of a large vocabulary, plain and in chunks."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import Any

import torch

from lmzoo.bench.train import PRECISIONS
from lmzoo.hardware import hardware, peak_resident, timed, versions
from lmzoo.losses import chunk_size, chunked_cross_entropy, cross_entropy
from lmzoo.train.precision import autocast

CPU = torch.device("cpu")


def bench_loss(vocab_size: int = 50257, tokens: int = 8192, d_model: int = 768, repeats: int = 3) -> dict[str, Any]:
    """Measure seconds (medians of `repeats` rounds, in turns) and peak bytes of a linear head and its loss.

    For each precision: the plain loss, the loss in chunks that a model computes with `return_logits=False`, and the
    ratio of the second to the first. Forward and backward, with gradients of the features and of the weight of the
    head.
    """
    x_BTD = torch.randn(1, tokens, d_model, requires_grad=True)
    head = torch.nn.Linear(d_model, vocab_size, bias=False)
    targets_BT = torch.randint(vocab_size, (1, tokens))
    losses: dict[str, Callable[[], torch.Tensor]] = {
        "plain": lambda: cross_entropy(head(x_BTD), targets_BT),
        "chunked": lambda: chunked_cross_entropy(x_BTD, head, targets_BT, chunk=chunk_size(vocab_size)),
    }
    results: dict[str, Any] = {}
    for precision in PRECISIONS:

        def run(loss: Callable[[], torch.Tensor], precision: str = precision) -> None:
            with autocast(CPU, precision):
                value = loss()
            value.backward()
            x_BTD.grad = head.weight.grad = None

        peaks = {name: peak_resident(lambda loss=loss: run(loss)) for name, loss in losses.items()}
        spent: dict[str, list[float]] = {name: [] for name in losses}
        for _ in range(repeats):
            for name, loss in losses.items():
                spent[name].append(timed(lambda loss=loss: run(loss)))
        seconds = {name: median(values) for name, values in spent.items()}
        plain, chunked = peaks["plain"], peaks["chunked"]
        results[precision] = {
            "seconds": seconds,
            "peak_bytes": peaks,
            "time_ratio": seconds["chunked"] / seconds["plain"],
            "memory_ratio": chunked / plain if plain and chunked is not None else None,
        }
    sizes = {"vocab_size": vocab_size, "tokens": tokens, "d_model": d_model}
    return {**sizes, "results": results, "machine": {**hardware(CPU), **versions()}}
