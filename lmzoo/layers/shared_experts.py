"""DeepSeek's experts: many small ones that are chosen, and shared ones that read every token.

Legend: B batch, T time, N = B·T tokens, D model width, E experts, K experts per token, F inner width of an expert, G
groups of experts.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from lmzoo.layers.experts import Experts
from lmzoo.layers.mlp import MLP, Activation
from lmzoo.ops.precision import wide
from lmzoo.ops.stable_topk import stable_topk


class SharedExperts(Experts):
    """`Experts` plus `n_shared` experts for all tokens (Dai et al. 2024, DeepSeekMoE, arXiv 2401.06066).

    The affinity of a token to an expert is a sigmoid as in DeepSeek-V3 (arXiv 2412.19437), or with `sigmoid=False` a
    softmax over the experts as in DeepSeek-V2 (arXiv 2405.04434). The weights are the affinities of the chosen experts,
    divided by their sum plus `share_eps` if `normalize` is true, and multiplied by `scale`.

    With `n_groups`, experts are chosen from the best `top_groups` groups of equal size only, so that a token visits few
    machines. The score of a group is the sum of its `group_best` largest affinities, by default of `top_k / top_groups`
    with a sigmoid, and of one with a softmax; with `balance_bias`, of the affinities plus the biases.

    With `by_logit`, biases are added to the logits instead of the affinities when experts are chosen (Kolibri 1).

    `balance_loss` is the coefficient of `E / K sum_e load_e p_e`, where p_e is the mean share of expert e in the
    affinities of a token.
    """

    def __init__(
        self,
        d_model: int,
        d_ff: int,
        n_experts: int,
        top_k: int,
        activation: Activation = F.silu,
        *,
        gated: bool = True,
        n_shared: int = 1,
        sigmoid: bool = True,
        by_logit: bool = False,
        normalize: bool = True,
        share_eps: float = 1e-20,
        scale: float = 1.0,
        n_groups: int = 1,
        top_groups: int = 1,
        group_best: int | None = None,
        balance_loss: float = 0.0,
        balance_bias: bool = True,
    ) -> None:
        balance = {"balance_loss": balance_loss / top_k, "balance_bias": balance_bias}
        super().__init__(d_model, d_ff, n_experts, top_k, activation, gated=gated, normalize=normalize, **balance)
        self.sigmoid, self.scale, self.share_eps = sigmoid, scale, share_eps
        self.by_logit = by_logit
        self.n_groups, self.top_groups = n_groups, top_groups
        self.group_best = group_best or best_of_group(top_k, top_groups, sigmoid=sigmoid)
        self.shared = MLP(d_model, n_shared * d_ff, activation, gated=gated) if n_shared else None

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Maps (B, T, D) to (B, T, D)."""
        y_BTD = super().forward(x_BTD)
        return y_BTD if self.shared is None else y_BTD + self.shared(x_BTD)

    def route(self, x_ND: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the shares of the experts, which are balanced, and the chosen experts and their weights."""
        logits_NE = wide(self.router(x_ND))
        affinity_NE = logits_NE.sigmoid() if self.sigmoid else logits_NE.softmax(dim=-1)
        scores_NE = logits_NE if self.by_logit else affinity_NE
        if self.choice_bias is not None:
            scores_NE = scores_NE + self.choice_bias
        _, chosen_NK = stable_topk(self.in_best_groups(scores_NE.detach()), self.top_k)
        weights_NK = affinity_NE.gather(-1, chosen_NK)
        if self.normalize:
            weights_NK = _shares(weights_NK, self.share_eps)
        return _shares(affinity_NE, self.share_eps) if self.sigmoid else affinity_NE, chosen_NK, self.scale * weights_NK

    def in_best_groups(self, scores_NE: Tensor) -> Tensor:
        """Returns the scores, minus infinity for the experts outside of the best groups."""
        if self.top_groups == self.n_groups:
            return scores_NE
        scores_NGE = scores_NE.unflatten(-1, (self.n_groups, -1))
        best_NG = scores_NGE.sort(dim=-1, descending=True).values[..., : self.group_best].sum(dim=-1)
        _, groups_NG = stable_topk(best_NG, self.top_groups)
        inside_NG = torch.zeros_like(best_NG).scatter(-1, groups_NG, 1.0) > 0
        return scores_NGE.masked_fill(~inside_NG[..., None], -math.inf).flatten(-2)


def best_of_group(top_k: int, top_groups: int, *, sigmoid: bool) -> int:
    """Returns how many affinities of a group make its score, by default."""
    return max(1, top_k // top_groups) if sigmoid else 1


def _shares(affinity_NE: Tensor, eps: float) -> Tensor:
    """Divides by the sum over the experts. If all affinities have become zero, so is the result."""
    return affinity_NE / (affinity_NE.sum(dim=-1, keepdim=True) + eps)
