"""Speculative decoding: a cheap draft proposes tokens, and the model checks all of them in one pass.

Leviathan, Kalman & Matias 2023 (arXiv 2211.17192, algorithm 1): a draft token x, drawn from the draft's distribution q,
is accepted with probability min(1, p(x) / q(x)), where p is the distribution of the model; otherwise the token is drawn
from max(0, p - q), normalized. So every token has exactly the model's distribution, whatever the draft. With greedy
settings, a draft token is accepted if it is the most likely token of the model.

Deviation: the algorithm draws one more token from p when all draft tokens were accepted; here that position has a draft
token too, which is tested like the others. So the token at a position depends only on the seed of the row and the
tokens before it, neither on the number of draft tokens nor on other rows. All rows advance together, up to the first
position at which one of them rejects its draft token. To undo a step, decoding continues from an earlier state; a state
is a value, so this works for every model.

Legend: B rows, N draft tokens, T tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Unpack

import torch
from torch import Tensor

from lmzoo import arguments
from lmzoo.errors import InputError
from lmzoo.generation.choice import Choice, Settings
from lmzoo.generation.drafts import Draft
from lmzoo.generation.job import DrawOptions, check_names, checked_prompt
from lmzoo.generation.loop import decode_evaluating, evaluating
from lmzoo.model import LanguageModel
from lmzoo.randomness import row_seeds, uniforms
from lmzoo.sampling import draw
from lmzoo.state import State


class SpeculativeOptions(DrawOptions, total=False):
    """Options of speculative decoding."""

    n_guesses: int  # draft tokens per pass of the model (default 4)


def generate_speculative(
    model: LanguageModel,
    draft: Draft,
    idx: Tensor,
    max_new_tokens: int,
    config: Settings = None,
    **options: Unpack[SpeculativeOptions],
) -> Tensor:
    """Continue idx (B, T) as `generate` does, faster if `draft` predicts well: (B, T + max_new_tokens) int64.

    Greedy decoding gives the tokens of `generate`, unless two logits are equal up to rounding, which reading several
    tokens at once may change. Sampling has the same distribution, with other draws. Arguments and errors as in
    `stream_speculative`.
    """
    blocks = stream_speculative(model, draft, idx, max_new_tokens, config, **options)
    tokens_BT = torch.cat([idx.to(model.device), *blocks], dim=1)
    missing = idx.shape[1] + max_new_tokens - tokens_BT.shape[1]
    return torch.cat([tokens_BT, tokens_BT[:, -1:].expand(-1, missing)], dim=1)


def stream_speculative(
    model: LanguageModel,
    draft: Draft,
    idx: Tensor,
    max_new_tokens: int,
    config: Settings = None,
    **options: Unpack[SpeculativeOptions],
) -> Iterator[Tensor]:
    """Yield a block of new tokens (B, 1 to n_guesses) int64 after each pass of `model`; longer blocks save more time.

    `draft` is a model with the same vocabulary, or one of `lmzoo.generation.drafts`. `config` applies to both. Past the
    context of a model that does not extrapolate, tokens are read one by one, which saves nothing. Raises `InputError`
    as `stream` does, for `n_guesses` below 1, and for a draft with another vocabulary.
    """
    check_names(options, SpeculativeOptions.__optional_keys__)
    n_guesses, stop_tokens = options.get("n_guesses", 4), options.get("stop_tokens", ())
    idx = checked_prompt(model, "idx", idx)
    max_new_tokens = arguments.count("max_new_tokens", max_new_tokens)
    stop_tokens = arguments.ids("stop_tokens", stop_tokens, model.config.vocab_size)
    n_guesses = arguments.count("n_guesses", n_guesses, least=1)
    if not all(callable(getattr(draft, name, None)) for name in ("init_state", "decode")):
        raise InputError(f"draft={draft!r} must be a model or one of lmzoo.generation.drafts")
    seeds_B = row_seeds(len(idx), options.get("generator"), options.get("seeds")).to(model.device)
    choice = Choice.make(config, len(idx))
    return _blocks(model, draft, idx, max_new_tokens, choice, n_guesses, stop_tokens, seeds_B)


def _blocks(
    model: LanguageModel,
    draft: Draft,
    idx: Tensor,
    max_new_tokens: int,
    choice: Choice,
    n_guesses: int,
    stop_tokens: Sequence[int],
    seeds_B: Tensor,
) -> Iterator[Tensor]:
    B, prompt = idx.shape
    stop_S = torch.tensor(list(stop_tokens), dtype=torch.long, device=idx.device)
    stopped_B = torch.zeros(B, dtype=torch.bool, device=idx.device)
    end = prompt + max_new_tokens
    tokens_BT = idx
    state, unread = model.init_state(B, end), 1  # `state` has not read the last `unread` tokens
    if prompt > 1 and max_new_tokens:
        _, state = decode_evaluating(model, idx[:, :-1], state)
    draft_state, draft_unread = draft.init_state(B, end), prompt
    while tokens_BT.shape[1] < end and not (len(stop_S) and bool(stopped_B.all())):
        n = min(n_guesses, end - tokens_BT.shape[1])
        count = tokens_BT.shape[1] - prompt
        guessed_BT, guess_probs, draft_states = _guess(
            draft, draft_state, tokens_BT, draft_unread, n, choice, seeds_B, count
        )
        if guess_probs[0].shape[1] != model.config.vocab_size:
            rule = f"the draft {guess_probs[0].shape[1]}: they must have the same tokens"
            raise InputError(f"the model has vocab_size={model.config.vocab_size}, {rule}")
        with evaluating(model):
            logits_BTV, after = model.decode_all(guessed_BT[:, -n - unread : -1], state)
        place, kept = tokens_BT.shape[1], True
        for i in range(n):
            if not kept:
                break
            probs_BV = choice.probabilities(logits_BTV[:, i - n], tokens_BT)
            uniform_2B = [uniforms(seeds_B, torch.full_like(seeds_B, 3 * (count + i) + k)) for k in (1, 2)]
            new_B = judge(probs_BV, guess_probs[i], guessed_BT[:, place + i], *uniform_2B)
            new_B = torch.where(stopped_B, tokens_BT[:, -1], new_B)
            kept = bool((stopped_B | (new_B == guessed_BT[:, place + i])).all())
            stopped_B = stopped_B | torch.isin(new_B, stop_S)
            tokens_BT = torch.cat([tokens_BT, new_B[:, None]], dim=1)
        block_BN = tokens_BT[:, place:].clone()
        made = block_BN.shape[1]
        draft_state, draft_unread = draft_states[made - 1], 1
        if kept:  # a stopped row may have read other tokens than it returns, but it draws no more
            state, unread = after, 1
        else:  # return to the earlier state; the accepted tokens are read again with the next draft tokens
            unread += made
            if unread > 2 * n_guesses + 1:
                _, state = decode_evaluating(model, tokens_BT[:, -unread:-1], state)
                unread = 1
        yield block_BN


def _guess(
    draft: Draft,
    state: State,
    tokens_BT: Tensor,
    unread: int,
    n: int,
    choice: Choice,
    seeds_B: Tensor,
    count: int,
) -> tuple[Tensor, list[Tensor], list[State]]:
    """Draft `n` tokens.

    Returns the tokens with the draft tokens appended, the probabilities (B, V) that each was drawn from, and the state
    of the draft before it read each of them.
    """
    probs: list[Tensor] = []
    states: list[State] = []
    for i in range(n):
        with evaluating(draft) if isinstance(draft, LanguageModel) else nullcontext():
            logits_BV, state = draft.decode(tokens_BT[:, -unread:], state)
        unread = 1
        probs_BV = choice.probabilities(logits_BV, tokens_BT)
        guess_B = draw(probs_BV, uniforms(seeds_B, torch.full_like(seeds_B, 3 * (count + i))))
        tokens_BT = torch.cat([tokens_BT, guess_B[:, None]], dim=1)
        probs.append(probs_BV)
        states.append(state)
    return tokens_BT, probs, states


def judge(
    probs_BV: Tensor, guess_probs_BV: Tensor, guess_B: Tensor, uniform_B: Tensor, other_uniform_B: Tensor
) -> Tensor:
    """Sample tokens (B,) from `probs_BV` that equal the draft tokens as often as possible.

    The draft tokens `guess_B` were drawn from `guess_probs_BV`.
    """
    p_B = probs_BV.gather(1, guess_B[:, None])[:, 0]
    q_B = guess_probs_BV.gather(1, guess_B[:, None])[:, 0]
    kept_B = uniform_B * q_B < p_B
    rest_BV = (probs_BV - guess_probs_BV).clamp(min=0.0)
    empty_B1 = rest_BV.sum(dim=-1, keepdim=True) == 0  # equal up to rounding: every token is accepted
    other_B = draw(torch.where(empty_B1, probs_BV, rest_BV), other_uniform_B)
    return torch.where(kept_B, guess_B, other_B)
