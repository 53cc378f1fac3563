"""Influence: how much each earlier token moves a prediction, as a gradient, for every architecture.

Legend: B batch, T time (t predicts, s is read), V vocabulary, N rows that are computed at once.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lmzoo.conformance.gradients import embedding_gradients
from lmzoo.errors import InputError
from lmzoo.generation.loop import evaluating
from lmzoo.model import LanguageModel, require_model
from lmzoo.ops.precision import wide_dtype

TOKENS_AT_A_TIME = 4096  # limits the memory: rows times tokens of one forward and backward pass


def influence(model: LanguageModel, idx: Tensor) -> Tensor:
    """Returns |d logit_t / d embedding_s| for the tokens idx (B, T) int64: (B, T, T), float32 or wider.

    Entry [b, t, s] is the L2 norm, over the width of the embedding of token s, of the gradient of one number: the logit
    that position t gives to the token that follows, minus the mean of its logits over the vocabulary. (The mean does
    not change the probabilities, so what moves all logits has no influence.) The last position, which no token follows,
    uses the most probable token. If the model looks up several embeddings of a token, the norm is over all of them.
    Entries with s > t are exactly 0. Dropout is off.

    It is a local measure: the change of the logit for a small step of the embedding in the most effective direction.
    What a model reads otherwise than through the embeddings of idx, such as tables of hashed n-grams, is not in it.

    Costs a forward and a backward pass of T (T + 1) / 2 tokens for each row of idx. Memory is limited: at most
    `TOKENS_AT_A_TIME` tokens, or one sequence, are computed at once. Raises `InputError` as `model(idx)` does, and for
    a model that looks up no embeddings.
    """
    require_model("model", model)
    with evaluating(model):
        with torch.no_grad():
            logits_BTV = model(idx).logits
        (B, T), dtype = idx.shape, wide_dtype(logits_BTV.dtype)
        influence_BTT = torch.zeros(B, T, T, dtype=dtype, device=idx.device)
        if B == 0:
            return influence_BTT
        next_BT = torch.cat([idx[:, 1:], logits_BTV[:, -1:].argmax(dim=-1)], dim=1)
        rows = max(1, TOKENS_AT_A_TIME // T)
        for b in range(B):
            for start in range(0, T, rows):
                end = min(start + rows, T)
                influence_BTT[b, start:end, :end] = _rows(model, idx[b, :end], next_BT[b, start:end]).to(dtype)
    return influence_BTT.tril()


def influence_flops(model: LanguageModel, T: int) -> float:
    """Returns about how many FLOPs the influence of one row of T tokens takes: three of a forward pass per token."""
    return 3 * model.flops_per_token(T) * T * (T + 1) / 2


def _rows(model: LanguageModel, idx_S: Tensor, next_N: Tensor) -> Tensor:
    """Returns the influence of S tokens on the predictions of the last N of them: (N, S).

    Each of the N rows of a batch computes the gradient of one prediction, so that no row adds to the gradient of
    another one.
    """
    S, N = len(idx_S), len(next_N)

    def output(logits_NSV: Tensor) -> Tensor:
        logits_NV = logits_NSV[torch.arange(N), torch.arange(S - N, S)].double()
        return (logits_NV.gather(1, next_N[:, None])[:, 0] - logits_NV.mean(dim=1)).sum()

    gradients = embedding_gradients(model, idx_S.repeat(N, 1), output)
    if not gradients:
        name = model.family or type(model).__name__
        raise InputError(f"{name} looks up no embedding of the tokens: influence needs one to take gradients of")
    return torch.stack([gradient.double().square().sum(dim=-1) for gradient in gradients]).sum(dim=0).sqrt()
