"""Measures the decoding speed of a model on this machine."""

from __future__ import annotations

import time
from statistics import median

import torch

from lmzoo.model import LanguageModel

DECODE_TOKENS = 256  # largest number of tokens to decode; fewer if the context is shorter
WARM_UP_TOKENS = 32  # after which a token takes as long as after a whole repetition
REPEATS = 5  # at most
_SECONDS = 0.5  # a slow model is repeated only until this time is spent


def decode_length(context_length: int) -> int:
    """Return the number of tokens to decode: within the context length, where every model does its usual work."""
    return max(1, min(DECODE_TOKENS, context_length - 1))


def decode_tokens_per_s(model: LanguageModel) -> float:
    """Measure tokens per second of greedy `generate`, one row, from a prompt of one token: median after a warm-up.

    The mode of the model (train or eval) is unchanged.
    """
    tokens = decode_length(model.config.context_length)
    idx_BT = torch.zeros((1, 1), dtype=torch.long, device=model.device)
    generator = torch.Generator(model.device).manual_seed(0)  # leaves the global random state alone
    durations: list[float] = []
    model.generate(idx_BT, min(tokens, WARM_UP_TOKENS), temperature=0.0, generator=generator)
    for _ in range(REPEATS):
        began = time.perf_counter()
        model.generate(idx_BT, tokens, temperature=0.0, generator=generator)
        if model.device.type == "cuda":
            torch.cuda.synchronize(model.device)
        durations.append(time.perf_counter() - began)
        if sum(durations) > _SECONDS:
            break
    return tokens / median(durations)
