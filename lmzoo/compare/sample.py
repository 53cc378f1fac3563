"""Writes the sample of a model after its first run; the report shows the samples of all models side by side."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lmzoo.data.tokenizers import Tokenizer
from lmzoo.model import LanguageModel

SAMPLE_TOKENS: int = 300
TEMPERATURE = 0.8


def write_sample(model: LanguageModel, tokenizer: Tokenizer, prompt_ids: Sequence[int], seed: int) -> str:
    """Generate one continuation of the prompt, of `SAMPLE_TOKENS` tokens; returns it without the prompt."""
    idx_BT = torch.tensor([list(prompt_ids)], device=model.device)
    generator = torch.Generator(model.device).manual_seed(seed)
    out_BT = model.generate(idx_BT, SAMPLE_TOKENS, temperature=TEMPERATURE, generator=generator)
    return tokenizer.decode(out_BT[0, len(prompt_ids) :].tolist())
