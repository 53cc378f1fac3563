"""The sampler loop of all models: tokens in, tokens out. Legend: B rows, P prompts, T prompt length, L all positions.

It uses only `init_state` and `decode` of a model. Prompts of different lengths need no padding: all rows start
together, and a row with a longer prompt reads its own tokens while others sample. `generate`, `stream` and
`generate_ragged` call this loop; `lmzoo.generation.text` generates text.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, Unpack

import torch
from torch import Tensor

from lmzoo import bounds
from lmzoo.errors import InputError
from lmzoo.generation.choice import Settings
from lmzoo.generation.job import Job, Options, checked_prompt
from lmzoo.model import LanguageModel, require_model
from lmzoo.randomness import uniforms
from lmzoo.state import State, select


def generate(
    model: LanguageModel, idx: Tensor, max_new_tokens: int, config: Settings = None, **options: Unpack[Options]
) -> Tensor:
    """Continue the prompts idx (P, T) by `max_new_tokens` tokens each: (B, T + max_new_tokens) int64, B = P n_samples.

    After one of `stop_tokens`, a row repeats it to the end. Arguments and errors as in `stream`.
    """
    steps_of = stream(model, idx, max_new_tokens, config, **options)
    bounds.require_memory(f"a result of {max_new_tokens} tokens", 8 * len(idx) * max_new_tokens)
    tokens = list(steps_of)
    tokens += tokens[-1:] * (max_new_tokens - len(tokens))  # every row has stopped and repeats its last token
    rows_BT = idx.to(model.device).repeat_interleave(options.get("n_samples", 1), dim=0)
    return torch.cat([rows_BT, torch.stack(tokens, dim=1)], dim=1) if tokens else rows_BT.clone()


def stream(
    model: LanguageModel, idx: Tensor, max_new_tokens: int, config: Settings = None, **options: Unpack[Options]
) -> Iterator[Tensor]:
    """Continue idx (P, T >= 1) int64 one token at a time: yields (B,) int64 on the device of the model.

    `config` is one config for all rows or a sequence with one per row; `options` are the fields of `Options`. Ends
    after `max_new_tokens`, or earlier when every row has sampled one of `stop_tokens`; a stopped row repeats its stop
    token while others continue. The model decodes in evaluation mode; its own mode is restored after each token.

    Raises `InputError` immediately for an empty prompt, ids out of range, `max_new_tokens` below 0, invalid seeds and
    other invalid options; while sampling, when the logits are NaN or all tokens are banned.
    """
    return (step.tokens for step in steps(model, make_job(model, idx, max_new_tokens, config, **options)))


def make_job(
    model: LanguageModel, idx: Tensor, max_new_tokens: int, config: Settings = None, **options: Unpack[Options]
) -> Job:
    """Returns the request for prompts idx (P, T) of equal length. Raises as `stream` does at the call."""
    idx = checked_prompt(model, "idx", idx)
    return Job.make(model, idx, [idx.shape[1]] * len(idx), max_new_tokens, config, **options)


def make_ragged_job(
    model: LanguageModel,
    prompts: Sequence[Sequence[int] | Tensor],
    max_new_tokens: int,
    config: Settings = None,
    **options: Unpack[Options],
) -> Job:
    """Returns the request for prompts of different lengths. Raises as `stream` does at the call."""
    require_model("model", model)
    sequence = prompts.ndim > 0 if isinstance(prompts, Tensor) else isinstance(prompts, Sequence)
    if not sequence or isinstance(prompts, (str, bytes)):
        raise InputError(f"prompts={prompts!r} must be a sequence of prompts, each a sequence of token ids")
    rows = [checked_prompt(model, f"prompts[{r}]", _as_row(r, prompt))[0] for r, prompt in enumerate(prompts)]
    empty_PL = torch.zeros(0, 1, dtype=torch.long, device=model.device)
    prompts_PL = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True) if rows else empty_PL
    return Job.make(model, prompts_PL, [len(row) for row in rows], max_new_tokens, config, **options)


def generate_ragged(
    model: LanguageModel,
    prompts: Sequence[Sequence[int] | Tensor],
    max_new_tokens: int,
    config: Settings = None,
    **options: Unpack[Options],
) -> list[Tensor]:
    """Continue prompts of different lengths; returns for each row its prompt and new tokens, (T_r + max_new_tokens,).

    Row r equals the result of `generate` for that prompt alone with the seed of the row. Arguments and errors as in
    `stream`.
    """
    job = make_ragged_job(model, prompts, max_new_tokens, config, **options)
    if not job.lengths:
        return []
    drawn = [step.tokens for step in steps(model, job)]
    tokens_BL = torch.stack(drawn, dim=1) if drawn else job.prompts_PL.new_zeros(len(job.lengths), 0)
    results = []
    for number, drawn_L in enumerate(tokens_BL):
        row = job.prompts_PL[number // job.n_samples, : job.lengths[number]]
        new = drawn_L[len(row) - min(job.lengths) :][:max_new_tokens]
        missing = max_new_tokens - len(new)  # if the loop ended early, the row has stopped and repeats its last token
        results.append(torch.cat([row, new, new[-1:].expand(missing)]))
    return results


_FIRST_TOKENS = 4096  # new tokens for which a long generation allocates memory at its start


class Step(NamedTuple):
    """The tokens and logits of one position."""

    tokens: Tensor  # (B,) int64: tokens of the prompt as long as a row has them, then sampled ones
    logits: Tensor  # (B, V): the output of the model
    drawn: Tensor  # (B,) bool: True if sampled now, not a prompt token or a repeated stop token


def steps(model: LanguageModel, job: Job) -> Iterator[Step]:
    """The loop: yields a step for each position after the shortest prompt."""
    device = model.device
    lengths_B = torch.tensor(job.lengths, dtype=torch.long, device=device)
    stop_S = torch.tensor(job.stop_tokens, dtype=torch.long, device=device)
    places_F = torch.tensor([*job.forced_tokens], dtype=torch.long, device=device)
    forced_F = torch.tensor([*job.forced_tokens.values()], dtype=torch.long, device=device)
    longest = job.prompts_PL.shape[1]
    shortest, end = min(job.lengths, default=longest), longest + job.max_new_tokens
    rows_B = torch.arange(len(job.prompts_PL), device=device).repeat_interleave(job.n_samples)
    # Room for the first tokens only, in the tokens and in the state: both grow, so that a long text can be streamed.
    room = min(job.max_new_tokens, max(4 * model.config.context_length, _FIRST_TOKENS))
    tokens_BL = torch.nn.functional.pad(job.prompts_PL, (0, room))[rows_B]
    stopped_B = torch.zeros(len(rows_B), dtype=torch.bool, device=device)
    draws, unused_B = job.choice.draws, torch.zeros(len(rows_B), dtype=torch.float64, device=device)
    state: State = job.prefix
    for position in range(shortest, end):
        if position == shortest:
            if state is None:
                state = model.init_state(len(job.prompts_PL), longest + room)
            unread_PT = job.prompts_PL[:, state["position"] : shortest]
            logits_BV, state = decode_evaluating(model, unread_PT, state)
            if job.n_samples > 1:
                logits_BV, state = logits_BV[rows_B], select(state, rows_B)
        else:
            logits_BV, state = decode_evaluating(model, tokens_BL[:, position - 1 : position], state)
            if position == tokens_BL.shape[1]:
                tokens_BL = torch.nn.functional.pad(tokens_BL, (0, min(position, end - position)))
        count_B = position - lengths_B
        uniform_B = uniforms(job.seeds_B, count_B) if draws else unused_B
        chosen_B = job.choice.choose(logits_BV, tokens_BL[:, :position], uniform_B)
        if len(places_F):
            here_BF = count_B[:, None] == places_F
            chosen_B = torch.where(here_BF.any(dim=1), forced_F[here_BF.long().argmax(dim=1)], chosen_B)
        samples_B = count_B >= 0
        chosen_B = torch.where(stopped_B, tokens_BL[:, position - 1], chosen_B)
        new_B = torch.where(samples_B, chosen_B, tokens_BL[:, position])
        tokens_BL[:, position] = new_B
        drawn_B = samples_B & ~stopped_B & (count_B < job.max_new_tokens)
        finished = False
        if len(stop_S):
            stopped_B = stopped_B | (samples_B & torch.isin(new_B, stop_S))
            finished = bool((stopped_B | (position + 1 >= lengths_B + job.max_new_tokens)).all())
        yield Step(new_B, logits_BV, drawn_B)
        if finished:
            return


@contextmanager
def evaluating(model: LanguageModel) -> Iterator[None]:
    """Set evaluation mode within the block and restore the training mode after it.

    The loop enters it once per token, so that a caller can train between two tokens of a stream or stop early.
    """
    training = model.training
    if training:
        model.eval()
    try:
        yield
    finally:
        if training:
            model.train()


def decode_evaluating(model: LanguageModel, idx_BT: Tensor, state: State) -> tuple[Tensor, State]:
    """Call `model.decode` in evaluation mode."""
    with evaluating(model):
        return model.decode(idx_BT, state)


def _as_row(number: int, prompt: Sequence[int] | Tensor) -> Tensor:
    """Returns a prompt as (1, T): lists of ids, even empty ones, as int64; a tensor keeps its type, checked later."""
    if isinstance(prompt, Tensor):
        return prompt[None]
    try:
        return torch.tensor([[operator.index(token) for token in prompt]], dtype=torch.long)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise InputError(f"prompts[{number}]={prompt!r} must be a sequence of token ids") from error
