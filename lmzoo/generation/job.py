"""The options of the sampler, and a generation request that is fully checked before the first token.

A row is one continuation: with `n_samples`, each prompt has that many consecutive rows.
Legend: B rows, P prompts, L tokens.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict, Unpack

import torch
from torch import Tensor

from lmzoo import arguments, bounds
from lmzoo.errors import InputError
from lmzoo.generation.choice import Choice, Processor, Settings
from lmzoo.model import LanguageModel, require_model
from lmzoo.randomness import row_seeds
from lmzoo.state import State

_MANY_LOGITS = 1 << 22  # rows times vocabulary from which memory is checked


class DrawOptions(TypedDict, total=False):
    """Options shared by all ways to sample. The tokens of a row do not depend on the other rows of its batch."""

    stop_tokens: Sequence[int]  # after one of them, a row repeats it to the end
    generator: torch.Generator | None  # draws a seed per row at the call; None: torch's global generator
    seeds: Sequence[int] | None  # one seed per row, instead of `generator`


class Options(DrawOptions, total=False):
    """Options of the sampler loop."""

    n_samples: int  # rows per prompt (default 1), which share its prefill
    forced_tokens: Mapping[int, int]  # {n: id}: sets the n-th new token (from 0) instead of sampling it
    processors: Sequence[Processor]  # logits processors: (logits_BV, tokens_BT) -> logits_BV, before the settings
    prefix: State | None  # the state after a common prefix of all prompts, which is not read again


def check_names(options: Mapping[str, object], known: Collection[str]) -> None:
    """Raise `InputError` for an option name that is not in `known`."""
    for name in options:
        if name not in known:
            raise InputError(f"{name!r} is not an option: the options are {', '.join(sorted(known))}")


@dataclass(frozen=True)
class Job:
    """A checked request. `prompts_PL` is padded at the end with any tokens; `lengths` has the prompt length per row."""

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
        """Check the options; the prompts are checked already. Raises `InputError` naming the bad value."""
        check_names(options, Options.__optional_keys__)
        prefix = options.get("prefix")
        max_new_tokens = arguments.count("max_new_tokens", max_new_tokens)
        stop_tokens = arguments.ids("stop_tokens", options.get("stop_tokens", ()), model.config.vocab_size)
        n_samples = arguments.count("n_samples", options.get("n_samples", 1), least=1)
        forced = _forced_tokens(model, options.get("forced_tokens", {}))
        _require_rows_memory(model, len(prompt_lengths) * n_samples, prompts_PL.shape[1] + max_new_tokens)
        lengths = [length for length in prompt_lengths for _ in range(n_samples)]
        if prefix is not None:
            model.check_state(prefix, len(prompts_PL))
            if prefix["position"] >= min(lengths, default=1 << 62):
                raise InputError(
                    f"prefix has read {prefix['position']} tokens: every prompt must have them, and at least one more"
                )
        seeds_B = row_seeds(len(lengths), options.get("generator"), options.get("seeds")).to(model.device)
        choice = Choice.make(settings, len(lengths), options.get("processors", ()))
        return cls(prompts_PL, lengths, max_new_tokens, choice, seeds_B, n_samples, stop_tokens, forced, prefix)


def checked_prompt(model: LanguageModel, name: str, idx: Tensor) -> Tensor:
    """Returns the prompt (B, T) on the device of the model. Raises `InputError` for an empty or invalid prompt."""
    require_model("model", model)
    model._check_ids(name, idx)
    if idx.shape[1] == 0:
        raise InputError(f"{name} is an empty prompt: give at least one token to continue from")
    if idx.device.type == "meta" and model.device.type != "meta":
        raise InputError(f"{name} is on the meta device and holds no ids")
    return idx.to(model.device)


def _forced_tokens(model: LanguageModel, forced: Mapping[int, int]) -> dict[int, int]:
    """Returns the forced tokens. Raises `InputError` unless they map positions to ids."""
    if not isinstance(forced, Mapping):
        raise InputError(f"forced_tokens={forced!r} must map positions to token ids")
    for n, token in forced.items():
        good = all(isinstance(value, int) and not isinstance(value, bool) for value in (n, token))
        if not good or not 0 <= n < arguments.LIMIT or not 0 <= token < model.config.vocab_size:
            rule = f"ids must be in [0, vocab_size={model.config.vocab_size}), positions 0 or above"
            raise InputError(f"forced_tokens holds {n!r}: {token!r}; {rule}")
    return dict(forced)


def _require_rows_memory(model: LanguageModel, rows: int, length: int) -> None:
    """Raise `InputError` if the rows cannot be decoded together: their logits, and the states of short rows."""
    if rows * model.config.vocab_size > _MANY_LOGITS:
        row = 16 * model.config.vocab_size + model.state_bytes(min(length, model.config.context_length))
        bounds.require_memory(f"decoding {rows} rows together", rows * row, model.device)
