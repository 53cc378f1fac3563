"""Cross-entropy, plain and chunked, and auxiliary losses."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import lmzoo
from lmzoo import losses
from lmzoo.losses import (
    IGNORE_INDEX,
    auxiliary_loss,
    chunked_cross_entropy,
    collect_auxiliary,
    cross_entropy,
    linear_map,
    with_auxiliary,
)


def case(ignored: int) -> tuple[torch.Tensor, nn.Linear, torch.Tensor]:
    torch.manual_seed(0)
    targets = torch.randint(7, (2, 6))
    targets.view(-1)[:ignored] = IGNORE_INDEX
    return torch.randn(2, 6, 4, dtype=torch.float64, requires_grad=True), nn.Linear(4, 7).double(), targets


@pytest.mark.parametrize("ignored", [0, 1, 7, 11, 12])
def test_mean_over_the_targets_that_count(ignored: int) -> None:
    x, head, targets = case(ignored)
    logits = head(x)
    terms = [-logits[b, t].log_softmax(0)[targets[b, t]] for b in range(2) for t in range(6) if targets[b, t] >= 0]
    expected = sum(terms) / len(terms) if terms else torch.tensor(0.0, dtype=torch.float64)
    torch.testing.assert_close(cross_entropy(logits, targets), expected)


@pytest.mark.parametrize("ignored", [0, 5, 11, 12])
@pytest.mark.parametrize("chunk", [1, 5, 6, 11, 12, 100, None])
def test_chunked_equals_plain_in_value_and_gradients(ignored: int, chunk: int | None) -> None:
    x, head, targets = case(ignored)
    plain = cross_entropy(head(x), targets)
    expected = torch.autograd.grad(plain, [x, *head.parameters()])
    chunked = chunked_cross_entropy(x, head, targets, chunk=chunk)
    torch.testing.assert_close(chunked, plain, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(torch.autograd.grad(chunked, [x, *head.parameters()]), expected, rtol=1e-12, atol=1e-12)


class Tied(nn.Module):
    """A head that owns no parameter, as the tied one of the backbones."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self._shared = (weight,)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self._shared[0])


class Capped(nn.Linear):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return torch.tanh(super().forward(input))


class Twice(nn.Linear):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return F.linear(F.linear(input, self.weight), self.weight)


class OfAnother(nn.Linear):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return F.linear(self.weight, self.weight)


class Forgets(nn.Linear):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        F.linear(input, self.weight)
        return self.weight


def watched() -> nn.Linear:
    head = nn.Linear(4, 7)
    head.register_forward_pre_hook(lambda module, inputs: None)
    return head


def hooked() -> nn.Linear:
    head = nn.Linear(4, 7)
    head.register_forward_hook(lambda module, inputs, logits: 2 * logits)
    return head


def test_what_a_linear_head_is() -> None:
    """One product of the input with a weight, whoever owns it; everything else is left to do its own work."""
    plain, bare = nn.Linear(4, 7), nn.Linear(4, 7, bias=False)
    assert linear_map(plain) == (plain.weight, plain.bias)
    assert linear_map(bare) == (bare.weight, None)
    weight = nn.Parameter(torch.ones(7, 4))
    assert linear_map(Tied(weight)) == (weight, None)
    tied = lmzoo.create_model("gpt2", vocab_size=7, d_model=4, n_heads=1, n_layers=1)
    assert linear_map(tied.head) == (tied.state_dict(keep_vars=True)["tokens.weight"], None)
    others = (Capped(4, 7), Twice(4, 7), OfAnother(4, 7), Forgets(4, 7), hooked(), watched(), nn.Identity())
    assert [linear_map(head) for head in (*others, nn.Sequential(plain, nn.ReLU()))] == [None] * 8


def test_a_head_of_its_own_is_compiled_as_it_is() -> None:
    x, _, targets = case(3)
    for head in (nn.Linear(4, 7).double(), Capped(4, 7).double()):

        def loss(x: torch.Tensor, chunk: int, head: nn.Module = head) -> torch.Tensor:
            return chunked_cross_entropy(x, head, targets, chunk=chunk)

        compiled = torch.compile(loss, backend="aot_eager")
        torch.testing.assert_close(compiled(x, 5), loss(x, 100))


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Linear(4, 7, bias=False),
        lambda: Tied(nn.Parameter(torch.randn(7, 4))),
        lambda: Capped(4, 7),
        lambda: torch.nn.utils.parametrizations.weight_norm(nn.Linear(4, 7)),
        hooked,
    ],
)
@pytest.mark.parametrize("bf16", [False, True])
def test_every_head_gets_the_plain_loss_and_gradients(make: Callable[[], nn.Module], bf16: bool) -> None:
    x, _, targets = case(3)
    x = x.detach().float().requires_grad_()
    head = make()
    inputs = [x, *(head.parameters() if not isinstance(head, Tied) else head._shared)]
    found = []
    for chunk in (100, 5):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            loss = chunked_cross_entropy(x, head, targets, chunk=chunk)
        found.append((loss.detach(), torch.autograd.grad(loss, inputs)))
    tolerance = 1e-2 if bf16 else 1e-6
    torch.testing.assert_close(found[1], found[0], rtol=tolerance, atol=tolerance)


def test_a_large_vocabulary_in_the_contract() -> None:
    """Two rows of `return_logits=False` against plain logits, tied and untied, compiled and not."""
    for name, tie in (("gpt2", True), ("llama", False)):
        torch.manual_seed(0)
        sizes = {"vocab_size": 31, "d_model": 8, "n_heads": 1, "n_layers": 1, "context_length": 6}
        model = lmzoo.create_model(name, tie_embeddings=tie, **sizes)
        idx, targets = torch.randint(31, (2, 3, 6))
        parameters = list(model.parameters())
        expected = torch.autograd.grad(model(idx, targets).loss, parameters)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(losses, "CHUNK_LOGITS", 31 * 4)
            actual = torch.autograd.grad(model(idx, targets, return_logits=False).loss, parameters)
            compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
            captured = torch.autograd.grad(compiled(idx, targets, return_logits=False).loss, parameters)
        torch.testing.assert_close(actual, expected)
        torch.testing.assert_close(captured, expected)


def test_chunked_never_holds_all_logits() -> None:
    held: list[int] = []

    class Head(nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            logits = super().forward(input)
            held.append(logits.numel() // logits.shape[-1])
            return logits

    x = torch.randn(4, 32, 8, requires_grad=True)
    chunked_cross_entropy(x, Head(8, 11), torch.randint(11, (4, 32)), chunk=16).backward()
    assert max(held) == 16
    assert len(held) == 2 * 128 // 16  # once forward, once again in the backward pass


def test_low_precision_logits_are_summed_in_float32() -> None:
    logits = torch.zeros(1, 4096, 512, dtype=torch.bfloat16)
    loss = cross_entropy(logits, torch.zeros(1, 4096, dtype=torch.long))
    assert loss.dtype == torch.float32
    assert abs(loss.item() - math.log(512)) < 1e-5


def test_auxiliary_losses_are_minimised_but_never_reported() -> None:
    weight = torch.tensor(3.0, requires_grad=True)
    with collect_auxiliary() as named:
        auxiliary_loss("balance", weight * 2)
        auxiliary_loss("balance", weight)
        auxiliary_loss("z", weight**2)
    auxiliary_loss("balance", weight * 100)  # outside: nobody listens
    assert {name: value.item() for name, value in named.items()} == {"balance": 9.0, "z": 9.0}
    loss = with_auxiliary(weight * 0.5, named)
    loss.backward()
    assert loss.item() == 1.5
    assert weight.grad is not None
    assert weight.grad.item() == 0.5 + 2 + 1 + 6


def test_the_ignored_target_is_the_fields() -> None:
    assert cross_entropy(torch.zeros(1, 2, 5), torch.tensor([[-100, 3]])).item() == pytest.approx(math.log(5))
    assert IGNORE_INDEX == -100


@pytest.mark.parametrize("identity", [False, True])
@pytest.mark.parametrize(("limit", "pieces"), [(None, [12]), (84, [12]), (83, [11, 1]), (30, [4, 4, 4]), (3, [1] * 12)])
def test_the_default_chunk_keeps_the_logits_under_the_limit(
    identity: bool, limit: int | None, pieces: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    x, head, targets = case(0)  # 12 positions, 7 logits each
    if identity:  # a model whose features are its logits
        x, head = torch.randn(2, 6, 7, requires_grad=True), nn.Identity()
    held: list[int] = []
    head.register_forward_hook(lambda module, inputs, logits: held.append(logits.numel() // 7))
    if limit is not None:
        monkeypatch.setattr(losses, "CHUNK_LOGITS", limit)
    loss = chunked_cross_entropy(x, head, targets)
    assert held == pieces
    loss.backward()
    assert len(held) == (1 if pieces == [12] else 2 * len(pieces)), "what fits is not computed again"


def test_a_model_inside_a_model_reports_to_its_own() -> None:
    with collect_auxiliary() as outer:
        auxiliary_loss("balance", torch.tensor(1.0))
        with collect_auxiliary() as inner:
            auxiliary_loss("balance", torch.tensor(5.0))
        auxiliary_loss("balance", torch.tensor(2.0))
    assert (outer["balance"].item(), inner["balance"].item()) == (3.0, 5.0)


def test_at_most_128_mib_of_logits_are_held() -> None:
    held: list[int] = []
    head = nn.Linear(1, 8192)
    head.register_forward_hook(lambda module, inputs, logits: held.append(logits.nbytes))
    chunked_cross_entropy(torch.zeros(1, 4097, 1), head, torch.zeros(1, 4097, dtype=torch.long))
    assert held == [128 << 20, 32 << 10]
