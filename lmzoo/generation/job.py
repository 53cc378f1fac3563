"""The options of the sampler, and a request checked in full before anything is drawn.

A row is one continuation: with `n_samples`, each prompt has that many consecutive rows.
Legend: B rows, P prompts, L tokens.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict, Unpack

import torch
from torch import Tensor

from lmzoo.errors import InputError
from lmzoo.generation.choice import Choice, Processor, Settings
from lmzoo.model import LanguageModel
from lmzoo.randomness import row_seeds
from lmzoo.state import State


class DrawOptions(TypedDict, total=False):
    """Options of every way to sample. What a row draws does not depend on the other rows of its batch."""

    stop_tokens: Sequence[int]  # a row that has drawn one repeats it to the end
    generator: torch.Generator | None  # gives each row its seed, in turn, at the call; None: torch's global one
    seeds: Sequence[int] | None  # one seed per row, in the place of `generator`


class Options(DrawOptions, total=False):
    """Options of the sampler loop."""

    n_samples: int  # rows per prompt (default 1), which share its prefill
    forced_tokens: Mapping[int, int]  # {n: id}: the n-th new token (from 0) is this one, not a drawn one
    processors: Sequence[Processor]  # logits processors: (logits_BV, tokens_BT) -> logits_BV, before the settings
    prefix: State | None  # a state after the first tokens of every prompt, which are not read again


def check_names(options: Mapping[str, object], known: Collection[str]) -> None:
    """Raise `TypeError`, as Python does, for an option whose name is not in `known`."""
    for name in options:
        if name not in known:
            raise TypeError(f"unexpected keyword argument {name!r}: the options are {', '.join(sorted(known))}")


@dataclass(frozen=True)
class Job:
    """A checked request. `prompts_PL` is padded at its end with any token; `lengths` are the prompt lengths by row."""

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
        **options: Unpack[Options],
    ) -> Job:
        """Check the options for prompts that are checked already. Raises `InputError` naming the bad value."""
        check_names(options, Options.__optional_keys__)
        n_samples, stop_tokens = options.get("n_samples", 1), tuple(options.get("stop_tokens", ()))
        forced, prefix = dict(options.get("forced_tokens", {})), options.get("prefix")
        check_limits(model, max_new_tokens, stop_tokens)
        if not isinstance(n_samples, int) or n_samples < 1:
            raise InputError(f"n_samples={n_samples!r} must be a positive integer")
        for n, token in forced.items():
            if n < 0 or not 0 <= token < model.config.vocab_size:
                rule = f"ids must be in [0, vocab_size={model.config.vocab_size}), positions 0 or above"
                raise InputError(f"forced_tokens holds {n}: {token}; {rule}")
        lengths = [length for length in prompt_lengths for _ in range(n_samples)]
        if prefix is not None and prefix["position"] >= min(lengths, default=1 << 62):
            raise InputError(
                f"prefix has read {prefix['position']} tokens: every prompt must have them, and at least one more"
            )
        seeds_B = row_seeds(len(lengths), options.get("generator"), options.get("seeds")).to(model.device)
        choice = Choice.make(settings, len(lengths), options.get("processors", ()))
        return cls(prompts_PL, lengths, max_new_tokens, choice, seeds_B, n_samples, stop_tokens, forced, prefix)


def checked_prompt(model: LanguageModel, name: str, idx: Tensor) -> Tensor:
    """Returns the prompt (B, T) on the device of the model. Raises `InputError` when it is empty or not a prompt."""
    model._check_ids(name, idx)
    if idx.shape[1] == 0:
        raise InputError(f"{name} is an empty prompt: give at least one token to continue from")
    return idx.to(model.device)


def check_limits(model: LanguageModel, max_new_tokens: int, stop_tokens: Sequence[int]) -> None:
    """Raise `InputError` for a negative number of tokens, and for stop tokens out of range."""
    if not isinstance(max_new_tokens, int) or max_new_tokens < 0:
        raise InputError(f"max_new_tokens={max_new_tokens!r} must be an integer, 0 or above")
    vocab_size = model.config.vocab_size
    for token in stop_tokens:
        if not 0 <= token < vocab_size:
            raise InputError(f"stop_tokens holds the id {token}: ids must be in [0, vocab_size={vocab_size})")
