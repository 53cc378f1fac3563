"""How fast a model decodes on this machine."""

from __future__ import annotations

import time
from statistics import median

import torch

from lmzoo.model import LanguageModel

DECODE_TOKENS = 256  # at most; fewer when the context is shorter
_REPEATS = 5
_SECONDS = 0.5  # a model so slow that this is spent is timed fewer times


def decode_length(context_length: int) -> int:
    """How many tokens are decoded to measure speed: within the context, where every model does its usual work."""
    return max(1, min(DECODE_TOKENS, context_length - 1))


def decode_tokens_per_s(model: LanguageModel) -> float:
    """Tokens per second of one row by greedy `generate`, from a prompt of one token: the median, after a warm-up.

    The model's mode stays as it is.
    """
    tokens = decode_length(model.config.context_length)
    idx_BT = torch.zeros((1, 1), dtype=torch.long, device=model.device)
    generator = torch.Generator(model.device).manual_seed(0)  # without one, the caller's random numbers would be used
    durations: list[float] = []
    for _ in range(_REPEATS + 1):  # the first is the warm-up
        began = time.perf_counter()
        model.generate(idx_BT, tokens, temperature=0.0, generator=generator)
        if model.device.type == "cuda":
            torch.cuda.synchronize(model.device)
        durations.append(time.perf_counter() - began)
        if len(durations) > 1 and sum(durations) > _SECONDS:
            break
    return tokens / median(durations[1:])
