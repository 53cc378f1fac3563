"""Scoring: log-probabilities of given tokens, and of generated tokens.

They come from the logits of the model, before temperature, penalties and other settings, so they can be compared and
added.
Legend: B rows, T tokens, N new tokens, K alternatives, V vocabulary.
"""

from __future__ import annotations

from typing import NamedTuple, Unpack

import torch
from torch import Tensor

from lmzoo import arguments, bounds
from lmzoo.errors import InputError
from lmzoo.generation.choice import Settings
from lmzoo.generation.job import Options, checked_prompt
from lmzoo.generation.loop import evaluating, make_job, steps
from lmzoo.model import LanguageModel, require_model

NUMBERS_AT_A_TIME = 1 << 22  # limit of logits in memory


class ScoredOutput(NamedTuple):
    """Generated tokens and their log-probabilities in nats, float32."""

    tokens: Tensor  # (B, T + N) int64, as returned by `generate`
    log_probs: Tensor  # (B, N) of the new tokens; 0 where a stopped row repeats its stop token
    top_tokens: Tensor  # (B, N, K) int64: the K most likely tokens at each position, the most likely first
    top_log_probs: Tensor  # (B, N, K)


@torch.no_grad()
def score(model: LanguageModel, idx: Tensor) -> Tensor:
    """Returns the log-probabilities (B, T - 1) of the tokens idx (B, T >= 1) int64, each given the tokens before it."""
    idx = checked_prompt(model, "idx", idx)
    (B, T), V = idx.shape, model.config.vocab_size
    chunk = max(1, NUMBERS_AT_A_TIME // max(1, B * V))
    state = model.init_state(B, T)
    scored = [torch.zeros(B, 0, dtype=torch.float32, device=idx.device)]
    for start in range(0, T - 1, chunk):
        end = min(start + chunk, T - 1)
        with evaluating(model):
            logits_BCV, state = model.decode_all(idx[:, start:end], state)
        targets_BC1 = idx[:, start + 1 : end + 1, None]
        scored.append(logits_BCV.float().log_softmax(dim=-1).gather(2, targets_BC1)[:, :, 0])
    return torch.cat(scored, dim=1)


@torch.no_grad()
def generate_with_log_probs(
    model: LanguageModel,
    idx: Tensor,
    max_new_tokens: int,
    config: Settings = None,
    *,
    top: int = 0,
    **options: Unpack[Options],
) -> ScoredOutput:
    """`generate` with the log-probability of each new token and of the `top` most likely tokens at its position.

    Arguments and errors as in `stream`; also raises `InputError` for `top` below 0 or above the vocabulary.
    """
    require_model("model", model)
    if arguments.count("top", top) > model.config.vocab_size:
        raise InputError(f"top={top} must be in [0, vocab_size={model.config.vocab_size}]")
    job = make_job(model, idx, max_new_tokens, config, **options)
    B, device = len(job.lengths), model.device
    bounds.require_memory(f"a result of {max_new_tokens} tokens", 12 * B * max_new_tokens * (1 + top), device)
    tokens_BN = torch.zeros(B, max_new_tokens, dtype=torch.long, device=device)
    log_probs_BN = torch.zeros(B, max_new_tokens, device=device)
    top_tokens_BNK = torch.zeros(B, max_new_tokens, top, dtype=torch.long, device=device)
    top_log_probs_BNK = torch.zeros(B, max_new_tokens, top, device=device)
    n = 0
    for n, step in enumerate(steps(model, job), start=1):
        log_probs_BV = step.logits.float().log_softmax(dim=-1)
        chosen_B = log_probs_BV.gather(1, step.tokens[:, None])[:, 0]
        tokens_BN[:, n - 1], log_probs_BN[:, n - 1] = step.tokens, chosen_B.where(step.drawn, 0.0)
        top_log_probs_BNK[:, n - 1], top_tokens_BNK[:, n - 1] = log_probs_BV.topk(top, dim=-1)
    for tensor in (tokens_BN, top_tokens_BNK, top_log_probs_BNK):
        tensor[:, n:] = tensor[:, n - 1 : n]  # every row has stopped and repeats its last
    rows_BT = idx.to(device).repeat_interleave(job.n_samples, dim=0)
    return ScoredOutput(torch.cat([rows_BT, tokens_BN], dim=1), log_probs_BN, top_tokens_BNK, top_log_probs_BNK)
