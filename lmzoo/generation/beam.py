"""Beam search: an approximate search for the most likely continuation with a few hypotheses at a time.

Legend: B batch, W beams, V vocabulary, L all positions. Works on any model: the hypotheses are rows of one batch, and
keeping one is selecting its row of the state.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lmzoo import arguments, bounds
from lmzoo.errors import InputError
from lmzoo.generation.job import checked_prompt
from lmzoo.generation.loop import decode_evaluating
from lmzoo.model import LanguageModel
from lmzoo.sampling import SamplingConfig, process
from lmzoo.state import select

MOST_PENALTY = 100  # a larger power of the length is not finite for long texts


class BeamOutput(NamedTuple):
    """The best hypothesis of each row."""

    tokens: Tensor  # (B, T + max_new_tokens) int64; after a stop token it is repeated
    log_probs: Tensor  # (B,) float64: log-probability in nats of the new tokens, up to the stop token


def beam_search(
    model: LanguageModel,
    idx: Tensor,
    max_new_tokens: int,
    *,
    beams: int = 4,
    length_penalty: float = 0.0,
    stop_tokens: Sequence[int] = (),
) -> BeamOutput:
    """Continue idx (B, T >= 1) int64, keeping the `beams` best hypotheses of each row after every token.

    A hypothesis that ends in one of `stop_tokens` is finished and stays a candidate. Hypotheses are ranked by
    log-probability / ((5 + n) / 6)^length_penalty, where n is the number of new tokens (Wu et al. 2016, arXiv
    1609.08144, equation 14); a penalty above 0 favors longer ones. One beam without penalty is greedy decoding; with
    enough beams the search is exhaustive. Raises `InputError` as `stream` does, and for `beams` below 1.
    """
    idx = checked_prompt(model, "idx", idx)
    max_new_tokens = arguments.count("max_new_tokens", max_new_tokens)
    stop_tokens = arguments.ids("stop_tokens", stop_tokens, model.config.vocab_size)
    beams = arguments.count("beams", beams, least=1)
    if not isinstance(length_penalty, (int, float)) or not abs(length_penalty) <= MOST_PENALTY:
        raise InputError(f"length_penalty={length_penalty!r} must be in [-{MOST_PENALTY}, {MOST_PENALTY}]")
    bounds.require_memory(f"a search with {beams} beams", 16 * len(idx) * beams * model.config.vocab_size, model.device)
    (B, T), W, V, device = idx.shape, beams, model.config.vocab_size, model.device
    stop_S = torch.tensor(list(stop_tokens), dtype=torch.long, device=device)
    tokens_BWL = idx[:, None].expand(B, W, T)
    log_probs_BW = torch.full((B, W), -torch.inf, dtype=torch.float64, device=device)
    log_probs_BW[:, 0] = 0.0  # all beams of a row start with the same prompt: only the first may branch
    finished_BW = torch.zeros(B, W, dtype=torch.bool, device=device)
    lengths_BW = torch.zeros(B, W, dtype=torch.long, device=device)
    first_row_B1 = torch.arange(B, device=device)[:, None] * W
    state = model.init_state(B, T + max_new_tokens)
    for step in range(max_new_tokens):
        if step == 0:
            logits_BV, state = decode_evaluating(model, idx, state)
            logits_NV = logits_BV.repeat_interleave(W, dim=0)
            state = select(state, torch.arange(B).repeat_interleave(W))
        else:
            logits_NV, state = decode_evaluating(model, tokens_BWL[:, :, -1].reshape(B * W, 1), state)
        next_BWV = process(logits_NV, SamplingConfig(), logits_NV.new_zeros(B * W, 0).long()).log_softmax(dim=-1)
        next_BWV = _repeat_only(next_BWV.view(B, W, V), finished_BW, tokens_BWL[:, :, -1])
        new_lengths_BW = lengths_BW + (~finished_BW).long()
        total_BWV = log_probs_BW[:, :, None] + next_BWV
        rank_BWV = total_BWV / (((5 + new_lengths_BW) / 6.0) ** length_penalty)[:, :, None]
        best_BW = rank_BWV.flatten(1).topk(W, dim=-1).indices
        parent_BW, token_BW = best_BW // V, best_BW % V
        log_probs_BW = total_BWV.flatten(1).gather(1, best_BW)
        lengths_BW = new_lengths_BW.gather(1, parent_BW)
        finished_BW = finished_BW.gather(1, parent_BW) | torch.isin(token_BW, stop_S)
        kept_BWL = tokens_BWL.gather(1, parent_BW[:, :, None].expand(-1, -1, tokens_BWL.shape[2]))
        tokens_BWL = torch.cat([kept_BWL, token_BW[:, :, None]], dim=2)
        state = select(state, (first_row_B1 + parent_BW).flatten())
        if len(stop_S) and bool(finished_BW.all()):
            break
    missing = T + max_new_tokens - tokens_BWL.shape[2]
    tokens_BWL = torch.cat([tokens_BWL, tokens_BWL[:, :, -1:].expand(B, W, missing)], dim=2)
    return BeamOutput(tokens_BWL[:, 0].clone(), log_probs_BW[:, 0].clone())  # topk puts the best first


def _repeat_only(log_probs_BWV: Tensor, finished_BW: Tensor, last_BW: Tensor) -> Tensor:
    """Allow only the last token again, with log-probability 0, after a finished hypothesis."""
    repeated_BWV = torch.full_like(log_probs_BWV, -torch.inf).scatter_(2, last_BW[:, :, None], 0.0)
    return torch.where(finished_BW[:, :, None], repeated_BWV, log_probs_BWV)
