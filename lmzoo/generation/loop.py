"""The one sampler loop, the same for every model: tokens in, tokens out. Legend: B batch, T prompt, L all positions.

It needs of a model only `init_state` and `decode`. Prompts of different lengths need no padding: all rows start
together, and a row whose prompt is longer is fed its own tokens where others sample. `generate`, `stream` and
`generate_ragged` are three ways to call the loop; text is in `lmzoo.generation.text`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from lmzoo.errors import InputError
from lmzoo.model import LanguageModel
from lmzoo.randomness import row_seeds, uniforms
from lmzoo.sampling import SamplingConfig, sample_with
from lmzoo.state import State


def generate(
    model: LanguageModel,
    idx: Tensor,
    max_new_tokens: int,
    config: SamplingConfig | None = None,
    *,
    stop_tokens: Sequence[int] = (),
    generator: torch.Generator | None = None,
    seeds: Sequence[int] | None = None,
) -> Tensor:
    """Continue the prompts idx (B, T) by `max_new_tokens` tokens each: (B, T + max_new_tokens) int64.

    A row that has drawn one of `stop_tokens` repeats it to the end. Arguments and errors as in `stream`.
    """
    tokens = list(stream(model, idx, max_new_tokens, config, stop_tokens=stop_tokens, generator=generator, seeds=seeds))
    tokens += tokens[-1:] * (max_new_tokens - len(tokens))  # every row has stopped and repeats its last
    idx = idx.to(model.device)
    return torch.cat([idx, torch.stack(tokens, dim=1)], dim=1) if tokens else idx.clone()


def stream(
    model: LanguageModel,
    idx: Tensor,
    max_new_tokens: int,
    config: SamplingConfig | None = None,
    *,
    stop_tokens: Sequence[int] = (),
    generator: torch.Generator | None = None,
    seeds: Sequence[int] | None = None,
) -> Iterator[Tensor]:
    """Continue idx (B, T >= 1) int64 one token at a time: yields (B,) int64 as they are drawn, on the model's device.

    Ends after `max_new_tokens`, or sooner when every row has drawn one of `stop_tokens`; a row that has repeats it
    while others go on. The model works in evaluation mode and is left as it was between any two tokens.

    Randomness: `seeds` gives each row its own; else each row takes its seed from `generator` (None: torch's global
    one) in turn, when `stream` is called. A row draws the same whatever else is in the batch.
    Raises `InputError` at once for an empty prompt, ids out of range, `max_new_tokens` below 0 or unsuitable seeds;
    while drawing, when the model gives NaN.
    """
    idx = checked_prompt(model, "idx", idx)
    check_limits(model, max_new_tokens, stop_tokens)
    seeds_B = row_seeds(len(idx), generator, seeds)
    return _steps(
        model, idx, [idx.shape[1]] * len(idx), max_new_tokens, config or SamplingConfig(), stop_tokens, seeds_B
    )


def generate_ragged(
    model: LanguageModel,
    prompts: Sequence[Sequence[int] | Tensor],
    max_new_tokens: int,
    config: SamplingConfig | None = None,
    *,
    stop_tokens: Sequence[int] = (),
    generator: torch.Generator | None = None,
    seeds: Sequence[int] | None = None,
) -> list[Tensor]:
    """Continue prompts of different lengths: for each its tokens and `max_new_tokens` more, (T_r + max_new_tokens,).

    Row r is what `generate` gives for that prompt alone with that row's seed. Arguments and errors as in `stream`.
    """
    rows = [
        checked_prompt(model, f"prompts[{r}]", torch.as_tensor(prompt, dtype=_id_type(prompt))[None])[0]
        for r, prompt in enumerate(prompts)
    ]
    check_limits(model, max_new_tokens, stop_tokens)
    seeds_B = row_seeds(len(rows), generator, seeds)
    if not rows:
        return []
    prompts_BL = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    lengths = [len(row) for row in rows]
    settings = config or SamplingConfig()
    steps = list(_steps(model, prompts_BL, lengths, max_new_tokens, settings, stop_tokens, seeds_B))
    tokens_BL = torch.stack(steps, dim=1) if steps else prompts_BL[:, :0]
    results = []
    for row, drawn_L in zip(rows, tokens_BL, strict=True):
        new = drawn_L[len(row) - min(lengths) :][:max_new_tokens]
        missing = max_new_tokens - len(new)  # when the loop ended early the row has stopped and repeats its last
        results.append(torch.cat([row, new, new[-1:].expand(missing)]))
    return results


def _steps(
    model: LanguageModel,
    prompts_BL: Tensor,
    lengths: list[int],
    max_new_tokens: int,
    config: SamplingConfig,
    stop_tokens: Sequence[int],
    seeds_B: Tensor,
) -> Iterator[Tensor]:
    """The loop. Yields the tokens (B,) of each position after the shortest prompt: a row's own as long as it has them,
    then those it draws. `prompts_BL` is padded at its end with anything.
    """
    device = model.device
    seeds_B, lengths_B = seeds_B.to(device), torch.tensor(lengths, dtype=torch.long, device=device)
    stop_S = torch.tensor(list(stop_tokens), dtype=torch.long, device=device)
    longest = prompts_BL.shape[1]
    shortest, end = min(lengths, default=longest), longest + max_new_tokens
    tokens_BL = torch.nn.functional.pad(prompts_BL, (0, end - longest))
    stopped_B = torch.zeros(len(lengths), dtype=torch.bool, device=device)
    state: State = model.init_state(len(lengths), end)
    read = 0
    for position in range(shortest, end):
        logits_BV, state = decode_evaluating(model, tokens_BL[:, read:position], state)
        read = position
        drawn_B = sample_with(logits_BV, config, tokens_BL[:, :position], uniforms(seeds_B, position - lengths_B))
        samples_B = position >= lengths_B
        drawn_B = torch.where(stopped_B, tokens_BL[:, position - 1], drawn_B)
        new_B = torch.where(samples_B, drawn_B, tokens_BL[:, position])
        tokens_BL[:, position] = new_B
        finished = False
        if len(stop_S):
            stopped_B = stopped_B | (samples_B & torch.isin(new_B, stop_S))
            finished = bool((stopped_B | (position + 1 >= lengths_B + max_new_tokens)).all())
        yield new_B
        if finished:
            return


def decode_evaluating(model: LanguageModel, idx_BT: Tensor, state: State) -> tuple[Tensor, State]:
    """`model.decode` in evaluation mode. The mode is set for this one call, so that whoever takes tokens from a stream
    and trains between them, or never takes the last, finds the model as it was.
    """
    training = model.training
    if training:
        model.eval()
    try:
        return model.decode(idx_BT, state)
    finally:
        if training:
            model.train()


def _id_type(prompt: Sequence[int] | Tensor) -> torch.dtype | None:
    """Lists of ids, the empty one included, are int64; a tensor keeps its type, to be checked."""
    return None if isinstance(prompt, Tensor) or any(not isinstance(token, int) for token in prompt) else torch.long


def checked_prompt(model: LanguageModel, name: str, idx: Tensor) -> Tensor:
    """The prompt (B, T) on the model's device."""
    model._check_ids(name, idx)
    if idx.shape[1] == 0:
        raise InputError(f"{name} is an empty prompt: give at least one token to continue from")
    return idx.to(model.device)


def check_limits(model: LanguageModel, max_new_tokens: int, stop_tokens: Sequence[int]) -> None:
    if not isinstance(max_new_tokens, int) or max_new_tokens < 0:
        raise InputError(f"max_new_tokens={max_new_tokens!r} must be an integer, 0 or above")
    vocab_size = model.config.vocab_size
    for token in stop_tokens:
        if not 0 <= token < vocab_size:
            raise InputError(f"stop_tokens holds the id {token}: ids must be in [0, vocab_size={vocab_size})")
