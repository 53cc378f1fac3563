"""Sampling: from logits to tokens, the same for every model.

`SamplingConfig` holds the settings; `process` applies them to logits; `sample` draws. Functions of logits return
logits, with -inf for a token that cannot be drawn, and do not change their argument unless their name ends in `_`.
Randomness is one number per row, see `lmzoo.randomness`: the token of a row does not depend on the other rows.
Legend: B batch, V vocabulary, T tokens so far, W remaining tokens, K the k highest, N tokens with a bias.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from lmzoo.errors import InputError
from lmzoo.randomness import row_seeds, uniforms
from lmzoo.sampling_config import SamplingConfig as SamplingConfig
from lmzoo.sampling_config import SamplingSettings as SamplingSettings
from lmzoo.sampling_config import named_settings as named_settings


def sample(
    logits_BV: Tensor, config: SamplingConfig, history_BT: Tensor, generator: torch.Generator | None = None
) -> Tensor:
    """Draw one token per row, (B,) int64, from logits (B, V) that follow the tokens (B, T).

    `generator` (on any device; None is torch's global one) is used once per row. Raises as `process` does.
    """
    seeds_B = row_seeds(len(logits_BV), generator).to(logits_BV.device)
    return sample_with(logits_BV, config, history_BT, uniforms(seeds_B, torch.zeros_like(seeds_B)))


def sample_with(logits_BV: Tensor, config: SamplingConfig, history_BT: Tensor, uniform_B: Tensor) -> Tensor:
    """`sample` with given randomness: a number in [0, 1) per row, made by `uniforms`."""
    if config.temperature == 0:
        if not config.adjusts:  # the common case needs no copy of the logits
            highest_B, token_B = logits_BV.max(dim=-1)
            if bool((highest_B > -math.inf).all()):  # False for a NaN too
                return token_B
        return _adjusted(logits_BV, config, history_BT).argmax(dim=-1)  # of tied tokens, the lowest id
    scores_BW, left_W = _left(logits_BV, config, history_BT)
    place_B = draw(scores_BW.softmax(dim=-1), uniform_B)
    return place_B if left_W is None else left_W[place_B]


def draw(probs_BV: Tensor, uniform_B: Tensor) -> Tensor:
    """Draw by inverse transform: the token (B,) whose interval of the cumulative distribution contains `uniform_B`.

    A token of probability 0 is never drawn. `probs_BV` need not be normalized. `uniform_B` is float64 in [0, 1 -
    2^-52].
    """
    cumulative_BV = probs_BV.double().cumsum(dim=-1)
    # A parallel sum (on a GPU) may rise by a rounding error where 0 is added, so tokens of probability 0 are excluded
    # explicitly. One token is always above the threshold, because uniform_B is a whole rounding step below 1.
    cumulative_BV = cumulative_BV.where(probs_BV > 0, 0.0)
    threshold_B1 = (uniform_B * cumulative_BV.amax(dim=-1))[:, None]
    return (cumulative_BV > threshold_B1).int().argmax(dim=-1)


def process(logits_BV: Tensor, config: SamplingConfig, history_BT: Tensor) -> Tensor:
    """Apply all settings of `config` to logits (B, V); returns float64, with at least one finite entry per row.

    Entries of +inf share all probability equally. `temperature=0` keeps one token.
    Raises `InputError` naming the row for NaN logits and when all tokens are banned, and for a logit_bias out of range.
    """
    if config.temperature == 0:
        return top_k(_adjusted(logits_BV, config, history_BT), 1)
    scores_BW, left_W = _left(logits_BV, config, history_BT)
    if left_W is None:
        return scores_BW
    return scores_BW.new_full(logits_BV.shape, -math.inf).index_copy_(1, left_W, scores_BW)


def _left(logits_BV: Tensor, config: SamplingConfig, history_BT: Tensor) -> tuple[Tensor, Tensor | None]:
    """Process the logits: (B, W) of the remaining tokens of any row, and their ascending ids (W,); None: all tokens."""
    scores_BV = _adjusted(logits_BV, config, history_BT)
    if config.temperature != 1.0:
        scores_BV = apply_temperature(scores_BV, config.temperature)
    if config.top_k is None or config.top_k >= scores_BV.shape[-1] or not len(scores_BV):  # no row has a highest token
        return _truncated(scores_BV, config), None
    # The remaining steps are exact on the few tokens left, and much cheaper than on the whole vocabulary.
    left_W = _highest(scores_BV, config.top_k)
    return _truncated(top_k(scores_BV[:, left_W], config.top_k), config), left_W


def _highest(scores_BV: Tensor, k: int) -> Tensor:
    """Returns the ascending ids (W,) of all tokens that are among the `k` highest of at least one row."""
    highest_BK, ids_BK = scores_BV.topk(k, dim=-1)
    border_B1 = highest_BK[:, -1:]
    if bool(((scores_BV >= border_B1).sum(dim=-1) <= k).all()):
        return ids_BK.unique()
    return (top_k(scores_BV, k) > -math.inf).any(dim=0).nonzero()[:, 0]  # of tied tokens, the lowest ids


def _adjusted(logits_BV: Tensor, config: SamplingConfig, history_BT: Tensor) -> Tensor:
    """Check the logits, then apply the bias and the penalties."""
    scores_BV = _checked(logits_BV, "the logits")
    if not config.adjusts:
        return scores_BV
    if scores_BV is logits_BV:
        scores_BV = scores_BV.clone()  # in place from here on: on a large vocabulary, allocating is most of the cost
    if config.logit_bias:
        add_bias_(scores_BV, config.logit_bias)
    if config.repetition_penalty != 1.0:
        repetition_penalty_(scores_BV, config.repetition_penalty, history_BT)
    if config.frequency_penalty or config.presence_penalty:
        count_penalty_(scores_BV, config.frequency_penalty, config.presence_penalty, history_BT)
    return _checked(scores_BV, "logit_bias")


def _truncated(scores_BV: Tensor, config: SamplingConfig) -> Tensor:
    """Apply the settings that depend on probabilities: top_p, min_p, typical_p."""
    if config.top_p is not None:
        scores_BV = top_p(scores_BV, config.top_p)
    if config.min_p is not None:
        scores_BV = min_p(scores_BV, config.min_p)
    if config.typical_p is not None:
        scores_BV = typical_p(scores_BV, config.typical_p)
    return scores_BV


def _checked(logits_BV: Tensor, culprit: str) -> Tensor:
    """Convert to float64 and resolve +inf. Raises `InputError` for rows that define no distribution."""
    logits_BV = logits_BV.double()
    highest_B = logits_BV.amax(dim=-1)  # a NaN propagates to the maximum
    if bool((highest_B.isnan() | highest_B.isinf()).any()):  # one check in the common case
        for row, highest in enumerate(highest_B.tolist()):
            if math.isnan(highest):
                raise InputError(f"the logits of row {row} hold NaN: the model's output must be numbers")
            if highest == -math.inf:
                raise InputError(f"row {row} has no token left: {culprit} must not be -inf for all of them")
        certain_BV = torch.zeros_like(logits_BV).masked_fill(logits_BV != math.inf, -math.inf)
        logits_BV = torch.where(highest_B.isinf()[:, None], certain_BV, logits_BV)
    return logits_BV


def _replace_(logits_BV: Tensor, index_BT: Tensor, new_BT: Tensor, banned_BT: Tensor | None = None) -> Tensor:
    """Write `new_BT` at `index_BT` in place. Finite logits stay finite; +inf (certain) and -inf (banned) stay."""
    most, old_BT = torch.finfo(logits_BV.dtype).max, logits_BV.gather(1, index_BT)
    new_BT = torch.where(old_BT.isinf(), old_BT, new_BT.clamp(-most, most))
    if banned_BT is not None:
        new_BT = new_BT.masked_fill(banned_BT, -math.inf)
    return logits_BV.scatter_(1, index_BT, new_BT)


def add_bias_(logits_BV: Tensor, bias: Mapping[int, float]) -> Tensor:
    """Add `bias[token]` to the logit of each token, in place. Raises `InputError` for an id out of range."""
    vocab_size = logits_BV.shape[-1]
    for token in bias:
        if not 0 <= token < vocab_size:
            raise InputError(f"logit_bias has the token id {token}: ids must be in [0, vocab_size={vocab_size})")
    index_BN = torch.tensor(list(bias), dtype=torch.long, device=logits_BV.device).expand(len(logits_BV), -1)
    bias_N = torch.tensor(list(bias.values()), dtype=logits_BV.dtype, device=logits_BV.device)
    biased_BN = logits_BV.gather(1, index_BN) + bias_N
    return _replace_(logits_BV, index_BN, biased_BN, (bias_N == -math.inf).expand_as(index_BN))


def repetition_penalty_(logits_BV: Tensor, penalty: float, history_BT: Tensor) -> Tensor:
    """Divide the positive logits of tokens in the history by `penalty` and multiply the others, in place.

    Keskar et al. 2019, CTRL, arXiv 1909.05858, section 4.1, with the sign handled so that a penalty above 1 always
    lowers the logit.
    """
    seen_BT = logits_BV.gather(1, history_BT)
    return _replace_(logits_BV, history_BT, torch.where(seen_BT > 0, seen_BT / penalty, seen_BT * penalty))


def count_penalty_(logits_BV: Tensor, frequency: float, presence: float, history_BT: Tensor) -> Tensor:
    """Subtract `frequency` for each occurrence of a token in the history, and `presence` once if it occurs, in place.

    These are the penalties of the OpenAI completions API.
    """
    counts_BV = torch.zeros_like(logits_BV).scatter_add_(
        1, history_BT, torch.ones_like(history_BT, dtype=logits_BV.dtype)
    )
    taken_BT = frequency * counts_BV.gather(1, history_BT) + presence
    return _replace_(logits_BV, history_BT, logits_BV.gather(1, history_BT) - taken_BT)


def apply_temperature(logits_BV: Tensor, temperature: float) -> Tensor:
    """Subtract the row maximum, so that nothing overflows, and divide by `temperature` > 0."""
    return (logits_BV - logits_BV.amax(dim=-1, keepdim=True)).div_(temperature)


def top_k(logits_BV: Tensor, k: int) -> Tensor:
    """Keep the `k` highest logits of each row; of tied ones at the border, the lowest ids.

    Fan et al. 2018, arXiv 1805.04833.
    """
    if k >= logits_BV.shape[-1]:
        return logits_BV
    border_B1 = logits_BV.topk(k, dim=-1).values[:, -1:]
    return _keep_from(logits_BV, border_B1, torch.full_like(border_B1, k, dtype=torch.long))


def top_p(logits_BV: Tensor, p: float) -> Tensor:
    """Keep the smallest set of most likely tokens whose probability reaches `p`; at least one; p = 1 keeps all.

    Holtzman et al. 2020, nucleus sampling, arXiv 1904.09751. Of tied tokens, the lowest ids come first.
    """
    if p >= 1:
        return logits_BV
    top_B1 = logits_BV.amax(dim=-1, keepdim=True)
    total_B1 = (logits_BV - top_B1).exp().sum(dim=-1, keepdim=True)
    width, vocab_size = 0, logits_BV.shape[-1]
    while True:  # few tokens are usually enough, and finding them is many times cheaper than sorting all
        width = min(max(256, 8 * width), vocab_size)
        highest_BW = logits_BV.topk(width, dim=-1).values
        reached_BW = ((highest_BW - top_B1).exp() / total_B1).cumsum(dim=-1)
        if width == vocab_size or bool((reached_BW[:, -1] >= p).all()):
            break
    # A token is kept when the tokens above it do not reach p.
    count_B1 = 1 + (reached_BW[:, :-1] < p).sum(dim=-1, keepdim=True)
    return _keep_from(logits_BV, highest_BW.gather(-1, count_B1 - 1), count_B1)


def _keep_from(logits_BV: Tensor, border_B1: Tensor, count_B1: Tensor) -> Tensor:
    """Keep the `count_B1` highest logits, the lowest of which is `border_B1`; of those equal to it, the lowest ids."""
    above_BV, tied_BV = logits_BV > border_B1, logits_BV == border_B1
    places_B1 = count_B1 - above_BV.sum(dim=-1, keepdim=True)
    if bool((tied_BV.sum(dim=-1, keepdim=True) <= places_B1).all()):  # the common case: no tie is cut
        return logits_BV.masked_fill(logits_BV < border_B1, -math.inf)
    kept_BV = above_BV | (tied_BV & (tied_BV.cumsum(dim=-1) <= places_B1))
    return logits_BV.masked_fill(~kept_BV, -math.inf)


def typical_p(logits_BV: Tensor, p: float) -> Tensor:
    """Keep the tokens whose -log probability is nearest to the entropy, as many as reach the probability `p`.

    Meister et al. 2023, locally typical sampling, arXiv 2202.00666. Of tied tokens, the lowest ids come first.
    """
    if p >= 1:
        return logits_BV
    log_probs_BV = logits_BV.log_softmax(dim=-1)
    entropy_B1 = torch.special.entr(log_probs_BV.exp()).sum(dim=-1, keepdim=True)
    order_BV = (log_probs_BV + entropy_B1).abs().sort(dim=-1, stable=True).indices
    reached_BV = log_probs_BV.exp().gather(-1, order_BV).cumsum(dim=-1)
    dropped_BV = F.pad(reached_BV[:, :-1] >= p, (1, 0))  # the tokens before it reach p already
    return logits_BV.masked_fill(dropped_BV.scatter(-1, order_BV, dropped_BV), -math.inf)


def min_p(logits_BV: Tensor, p: float) -> Tensor:
    """Keep tokens with at least `p` times the highest probability (Nguyen et al. 2024, arXiv 2407.01082)."""
    return logits_BV.masked_fill(logits_BV < logits_BV.amax(dim=-1, keepdim=True) + math.log(p), -math.inf)
