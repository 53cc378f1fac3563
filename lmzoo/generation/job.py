"""What a call of the sampler asks for, checked at once, before anything is drawn. Legend: B rows, P prompts, L tokens.

A row is one continuation: with `n_samples`, each prompt has that many rows, one after the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

import torch
from torch import Tensor

from lmzoo.errors import InputError
from lmzoo.generation.choice import Choice, Processor, Settings
from lmzoo.model import LanguageModel
from lmzoo.randomness import row_seeds
from lmzoo.state import State


class Options(TypedDict, total=False):
    """What every way to sample takes by name. Randomness: `seeds` gives each row its own; else each row takes its seed
    from `generator` (None: torch's global one) in turn, at the call. A row draws the same whatever its batch holds.
    """

    n_samples: int  # rows per prompt, which share the reading of it
    stop_tokens: Sequence[int]  # a row that has drawn one repeats it to the end
    forced_tokens: Mapping[int, int]  # {n: id}: the n-th new token (from 0) is this one, whatever the model says
    processors: Sequence[Processor]  # functions (logits_BV, tokens_BT) -> logits_BV, applied before the settings
    prefix: State | None  # a state that has read the first tokens of every prompt: they are not read again
    generator: torch.Generator | None
    seeds: Sequence[int] | None


@dataclass(frozen=True)
class Job:
    """A checked request. `prompts_PL` is padded at its end with anything; `lengths` are those of the rows."""

    prompts_PL: Tensor
    lengths: list[int]
    max_new_tokens: int
    choice: Choice
    seeds_B: Tensor
    n_samples: int
    stop_tokens: tuple[int, ...]
    forced_tokens: Mapping[int, int]
    prefix: State | None

    @classmethod
    def make(
        cls,
        model: LanguageModel,
        prompts_PL: Tensor,
        prompt_lengths: Sequence[int],
        max_new_tokens: int,
        settings: Settings,
        *,
        n_samples: int = 1,
        stop_tokens: Sequence[int] = (),
        forced_tokens: Mapping[int, int] | None = None,
        processors: Sequence[Processor] = (),
        prefix: State | None = None,
        generator: torch.Generator | None = None,
        seeds: Sequence[int] | None = None,
    ) -> Job:
        """For prompts that are checked already. Raises `InputError` naming what cannot be."""
        check_limits(model, max_new_tokens, stop_tokens)
        if not isinstance(n_samples, int) or n_samples < 1:
            raise InputError(f"n_samples={n_samples!r} must be a positive integer")
        forced = dict(forced_tokens or {})
        for place, token in forced.items():
            if place < 0 or not 0 <= token < model.config.vocab_size:
                rule = f"ids must be in [0, vocab_size={model.config.vocab_size}), places 0 or above"
                raise InputError(f"forced_tokens holds {place}: {token}; {rule}")
        lengths = [length for length in prompt_lengths for _ in range(n_samples)]
        if prefix is not None and prefix["position"] >= min(lengths, default=1 << 62):
            raise InputError(
                f"prefix has read {prefix['position']} tokens: every prompt must have them, and at least one more"
            )
        seeds_B = row_seeds(len(lengths), generator, seeds).to(model.device)
        choice = Choice.make(settings, len(lengths), processors)
        return cls(prompts_PL, lengths, max_new_tokens, choice, seeds_B, n_samples, tuple(stop_tokens), forced, prefix)


def checked_prompt(model: LanguageModel, name: str, idx: Tensor) -> Tensor:
    """The prompt (B, T) on the model's device. Raises `InputError` when it is empty or no prompt."""
    model._check_ids(name, idx)
    if idx.shape[1] == 0:
        raise InputError(f"{name} is an empty prompt: give at least one token to continue from")
    return idx.to(model.device)


def check_limits(model: LanguageModel, max_new_tokens: int, stop_tokens: Sequence[int]) -> None:
    """Raises `InputError` for a negative number of tokens, and for stop tokens out of range."""
    if not isinstance(max_new_tokens, int) or max_new_tokens < 0:
        raise InputError(f"max_new_tokens={max_new_tokens!r} must be an integer, 0 or above")
    vocab_size = model.config.vocab_size
    for token in stop_tokens:
        if not 0 <= token < vocab_size:
            raise InputError(f"stop_tokens holds the id {token}: ids must be in [0, vocab_size={vocab_size})")
