"""Mixture of experts without dropping: a router sends each token to a few gated feed-forward layers.

Legend: B batch, T time, N = B·T tokens, D model width, E experts, K experts per token, F inner width of an expert.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from lmzoo.errors import ConfigError
from lmzoo.layers.init import constant, normal
from lmzoo.layers.layer import Layer
from lmzoo.layers.linear import Linear
from lmzoo.layers.mlp import Activation
from lmzoo.losses import auxiliary_loss
from lmzoo.ops.experts import Biases, expert_mlp
from lmzoo.ops.precision import wide
from lmzoo.ops.stable_topk import stable_topk

BIAS_GRADIENT = 1e-3  # small, so that the biases have no share in the gradient norm that is clipped


class Experts(Layer):
    """The weighted sum of the `top_k` most probable of `n_experts` feed-forward layers, gated or not.

    From Shazeer et al. 2017 (arXiv 1701.06538), with the routing of Mixtral (Jiang et al. 2024, arXiv 2401.04088): the
    weights are a softmax over the chosen experts, or with `normalize=False` their share in a softmax over all, which
    `top_k=1` needs, as in Switch: the weight of a single expert would always be 1, and the router without a gradient.
    With `bias`, the router and the experts have biases. A variant overrides `combine`.

    Two ways to balance the load of the experts, both in training only:

    - `balance_loss`: the coefficient of Switch's auxiliary loss `E sum_e load_e p_e` (Fedus et al. 2021, arXiv
      2101.03961, equation 4), where load_e is the share of tokens sent to expert e and p_e its mean probability.
    - `balance_bias`: a bias is added to the probabilities when experts are chosen, not when they are weighted (Wang et
      al. 2024, arXiv 2408.15664). Their rule changes the bias by the sign of the load's error; here that sign, times
      `BIAS_GRADIENT`, is the gradient of an auxiliary loss. AdamW's steps do not depend on the scale of a gradient, so
      the step size is about the learning rate.
    """

    reach = 1
    keep_float32 = ("choice_bias",)  # built up in small steps
    up: Tensor  # (E, 2 F, D), gate and up, or (E, F, D) if not gated
    down: Tensor  # (E, D, F)
    up_bias: Tensor | None  # (E, 2 F) or (E, F)
    down_bias: Tensor | None  # (E, D)
    choice_bias: Tensor | None  # (E,)

    def __init__(
        self,
        d_model: int,
        d_ff: int,
        n_experts: int,
        top_k: int,
        activation: Activation = F.silu,
        *,
        gated: bool = True,
        bias: bool = False,
        normalize: bool = True,
        balance_loss: float = 0.0,
        balance_bias: bool = False,
    ) -> None:
        super().__init__()
        if top_k == 1 and normalize:
            rule = "the normalized weight of one expert is always 1, so the router would get no gradient"
            raise ConfigError(f"top_k=1 needs normalize=False: {rule}")
        self.n_experts, self.top_k, self.d_ff = n_experts, top_k, d_ff
        self.activation, self.normalize, self.balance_loss = activation, normalize, balance_loss
        self.router = Linear(d_model, n_experts, bias=bias)
        inner = 2 * d_ff if gated else d_ff
        self.own("up", (n_experts, inner, d_model), normal(), "matrices")
        self.own("down", (n_experts, d_model, d_ff), normal(), "matrices")
        self.active = {"up": top_k / n_experts, "down": top_k / n_experts}
        if bias:
            self.own("up_bias", (n_experts, inner), constant(0.0), "vector")
            self.own("down_bias", (n_experts, d_model), constant(0.0), "vector")
            self.active |= {"up_bias": top_k / n_experts, "down_bias": top_k / n_experts}
        else:
            self.register_parameter("up_bias", None)
            self.register_parameter("down_bias", None)
        if balance_bias:
            self.own("choice_bias", (n_experts,), constant(0.0))
        else:
            self.register_parameter("choice_bias", None)

    def flops(self, T: int) -> float:
        """Returns the FLOPs of one token in its `top_k` experts."""
        return 2.0 * self.top_k / self.n_experts * (self.up.numel() + self.down.numel())

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Maps (B, T, D) to (B, T, D)."""
        x_ND = x_BTD.flatten(0, 1)
        p_NE, chosen_NK, weights_NK = self.route(x_ND)
        if self.training:
            self._balance(p_NE, chosen_NK)
        weights_NK = weights_NK.to(x_ND.dtype)
        y_ND = expert_mlp(x_ND, chosen_NK, weights_NK, self.up, self.down, self.combine, self.biases)
        return y_ND.view_as(x_BTD)

    @property
    def biases(self) -> Biases | None:
        """Returns the biases of the experts, if they have any."""
        return None if self.up_bias is None or self.down_bias is None else Biases(self.up_bias, self.down_bias)

    def combine(self, *parts: Tensor) -> Tensor:
        """Returns the inner features of the experts, (..., F), for gate and up projection, or the latter alone."""
        first = self.activation(parts[0])
        return first if len(parts) == 1 else first * parts[1]

    def route(self, x_ND: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the probabilities of the experts, which are balanced, and the chosen experts and their weights."""
        p_NE = wide(self.router(x_ND)).softmax(dim=-1)
        scores_NE = p_NE if self.choice_bias is None else p_NE + self.choice_bias
        _, chosen_NK = stable_topk(scores_NE.detach(), self.top_k)
        weights_NK = p_NE.gather(-1, chosen_NK)
        if self.normalize:
            weights_NK = weights_NK / weights_NK.sum(dim=-1, keepdim=True)
        return p_NE, chosen_NK, weights_NK

    def offers(self, x_BTD: Tensor) -> dict[str, Tensor]:
        """Returns the probabilities of the experts, and the chosen experts and their weights."""
        routed = (found.unflatten(0, x_BTD.shape[:2]) for found in self.route(x_BTD.flatten(0, 1)))
        return dict(zip(("router.probabilities", "router.chosen", "router.weights"), routed, strict=True))

    def _balance(self, p_NE: Tensor, chosen_NK: Tensor) -> None:
        """Reports the auxiliary losses that balance the load."""
        tokens = max(1, len(p_NE))
        load_E = p_NE.new_zeros(self.n_experts).scatter_add(0, chosen_NK.flatten(), p_NE.new_ones(chosen_NK.numel()))
        load_E = load_E / tokens
        if self.balance_loss:
            even = self.n_experts * (load_E * p_NE.sum(0) / tokens).sum()
            auxiliary_loss("balance", self.balance_loss * even)
        if self.choice_bias is not None:
            error_E = BIAS_GRADIENT * (load_E - load_E.mean()).sign()
            auxiliary_loss("balance_bias", (self.choice_bias * error_E).sum())
