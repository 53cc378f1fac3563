"""Tests the influence: against autograd by hand, finite differences and closed forms, for every family."""

from __future__ import annotations

import math
import sys

import pytest
import torch
from torch import Tensor, nn

from lmzoo import registry
from lmzoo.conformance import subject
from lmzoo.errors import InputError
from lmzoo.inspect import influence as package_influence
from lmzoo.inspect.influence import influence, influence_flops
from lmzoo.model import LanguageModel, ModelConfig, Traits
from lmzoo.state import State

module = sys.modules[influence.__module__]  # the package has a function of this name
T = 6
WITHOUT = ("ngram",)  # no embedding of the tokens


def table_of(model: LanguageModel) -> nn.Module:
    """Return the module that looks the tokens up."""
    return model.table if hasattr(model, "table") else model.tokens  # type: ignore[return-value]


def by_hand(model: LanguageModel, idx: Tensor) -> Tensor:
    """Compute the influence by one backward pass for each position of the whole sequence, from zeros that are added."""
    B, n = idx.shape
    deltas: list[Tensor] = []

    def add(_module: nn.Module, _inputs: object, out: Tensor) -> Tensor:
        deltas.append(torch.zeros_like(out).requires_grad_())
        return out + deltas[-1]

    hook = table_of(model).register_forward_hook(add)
    logits_BTV = model(idx).logits
    hook.remove()
    rows = []
    for t in range(n):
        following_B = idx[:, t + 1] if t + 1 < n else logits_BTV[:, t].argmax(dim=-1)
        number = logits_BTV[torch.arange(B), t, following_B].sum() - logits_BTV[:, t].mean(dim=-1).sum()
        (gradient,) = torch.autograd.grad(number, deltas, retain_graph=True)
        rows.append(gradient[:, -n:].norm(dim=-1))
    return torch.stack(rows, dim=1)


@pytest.mark.parametrize("family", registry.families())
def test_influence_of_every_family_is_what_autograd_gives_by_hand(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TOKENS_AT_A_TIME", 4 * T)  # two batches
    tiny = subject(family)
    model, idx = tiny.model(dropout=0.3).double().train(), tiny.tokens(2, T)
    seen: list[int] = []
    model.register_forward_pre_hook(lambda _, args: seen.append(args[0].numel()))
    if family in WITHOUT:
        with pytest.raises(InputError, match=f"^{family} looks up no embedding of the tokens: influence needs one"):
            influence(model, idx)
        return
    found = influence(model, idx)
    assert model.training
    assert max(seen) <= 4 * T
    assert found.shape == (2, T, T)
    assert found.dtype == torch.float64
    assert torch.equal(found, found.tril()), "no influence of later tokens, not even of rounding"
    assert (found.diagonal(dim1=1, dim2=2) > 0).all()
    torch.testing.assert_close(found, by_hand(model.eval(), idx).tril(), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("family", ["gpt2", "lstm", "mamba"])
def test_influence_is_what_finite_differences_give(family: str) -> None:
    tiny = subject(family)
    model, idx = tiny.model().double(), tiny.tokens(1, 4)
    n, D, step = 4, model.config.d_model, 1e-6  # type: ignore[attr-defined]
    one_hot = torch.eye(n * D, dtype=torch.float64).view(n * D, n, D)  # a row for each number of the embeddings
    moved = torch.cat([step * one_hot, -step * one_hot])
    hook = table_of(model).register_forward_hook(lambda _module, _inputs, out: out + moved)
    with torch.no_grad():
        logits_BTV = model(idx.expand(2 * n * D, -1)).logits
        hook.remove()
        following = [*idx[0, 1:].tolist(), int(model(idx).logits[0, -1].argmax())]
    number_BT = logits_BTV[:, torch.arange(n), following] - logits_BTV.mean(dim=-1)
    slope_SDT = (number_BT[: n * D] - number_BT[n * D :]).view(n, D, n) / (2 * step)
    torch.testing.assert_close(influence(model, idx)[0], slope_SDT.norm(dim=1).T, rtol=1e-5, atol=1e-7)


class Fading(LanguageModel):
    """`logits_t = head(sum over s <= t of fade^(t - s) token_s)`: linear, so the influence has a closed form."""

    fade = 0.5

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.tokens, self.head = nn.Embedding(config.vocab_size, 5), nn.Linear(5, config.vocab_size)

    @property
    def traits(self) -> Traits:
        return Traits(extrapolates=True)

    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        ages_TT = torch.arange(idx_BT.shape[1])[:, None] - torch.arange(idx_BT.shape[1])
        weights_TT = torch.where(ages_TT >= 0, self.fade**ages_TT, 0.0).to(self.dtype)
        return weights_TT @ self.tokens(idx_BT), state


def test_influence_of_a_linear_model_has_its_closed_form() -> None:
    model, idx = Fading(ModelConfig(vocab_size=9)), torch.tensor([[1, 5, 5, 2, 8]])
    found = influence(model, idx)[0]
    assert found.dtype == torch.float32
    with torch.no_grad():
        following = [5, 5, 2, 8, int(model(idx).logits[0, -1].argmax())]
        rows_TD = model.head.weight[following] - model.head.weight.mean(dim=0)
    for t in range(5):
        for s in range(5):
            expected = Fading.fade ** (t - s) * rows_TD[t].norm().item() if s <= t else 0.0
            assert found[t, s].item() == pytest.approx(expected, rel=1e-5), (t, s)


def test_influence_of_the_bigram_is_of_the_present_token_alone() -> None:
    V = 11
    model = registry.create_model("bigram", vocab_size=V)
    found = influence(model, torch.tensor([[3, 1, 4, 1]]))[0]
    torch.testing.assert_close(found, math.sqrt(1 - 1 / V) * torch.eye(4))


def test_influence_of_16_bits_is_float32_and_needs_no_gradients_of_its_caller() -> None:
    tiny = subject("gpt2")
    model = tiny.model().bfloat16()
    for parameter in model.parameters():
        parameter.requires_grad = False
    with torch.no_grad():
        found = influence(model, tiny.tokens(1, 5))
    assert found.dtype == torch.float32
    assert (found.diagonal(dim1=1, dim2=2) > 0).all()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_influence_of_no_rows_and_of_too_long_texts() -> None:
    tiny = subject("gpt2")
    assert influence(tiny.model(), tiny.tokens(2, 5)[:0]).shape == (0, 5, 5)
    with pytest.raises(InputError, match="more than context_length"):
        influence(tiny.model(), tiny.tokens(1, tiny.context + 1))


def test_influence_flops_are_three_passes_over_all_prefixes() -> None:
    model = subject("llama").model()
    assert influence_flops(model, 4) == 3 * (1 + 2 + 3 + 4) * model.flops_per_token(4)


def test_influence_is_offered_by_the_package() -> None:
    assert package_influence is influence
