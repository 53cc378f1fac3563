"""Tests of cross-entropy, plain and chunked, and of auxiliary losses."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import lmzoo
from lmzoo import losses
from lmzoo.layers.context import Context
from lmzoo.layers.stack import Stack
from lmzoo.losses import (
    IGNORE_INDEX,
    auxiliary_loss,
    chunked_cross_entropy,
    collect_auxiliary,
    cross_entropy,
    linear_map,
    reported,
    with_auxiliary,
)
from lmzoo.train.activation_checkpointing import activation_checkpointing


def case(ignored: int) -> tuple[torch.Tensor, nn.Linear, torch.Tensor]:
    torch.manual_seed(0)
    targets = torch.randint(7, (2, 6))
    targets.view(-1)[:ignored] = IGNORE_INDEX
    return torch.randn(2, 6, 4, dtype=torch.float64, requires_grad=True), nn.Linear(4, 7).double(), targets


@pytest.mark.parametrize("ignored", [0, 1, 7, 11, 12])
def test_cross_entropy_is_the_mean_over_targets_that_are_not_ignored(ignored: int) -> None:
    x, head, targets = case(ignored)
    logits = head(x)
    terms = [-logits[b, t].log_softmax(0)[targets[b, t]] for b in range(2) for t in range(6) if targets[b, t] >= 0]
    expected = sum(terms) / len(terms) if terms else torch.tensor(0.0, dtype=torch.float64)
    torch.testing.assert_close(cross_entropy(logits, targets), expected)


@pytest.mark.parametrize("ignored", [0, 5, 11, 12])
@pytest.mark.parametrize("chunk", [1, 5, 6, 11, 12, 100])
def test_chunked_cross_entropy_equals_plain_in_value_and_gradients(ignored: int, chunk: int) -> None:
    x, head, targets = case(ignored)
    plain = cross_entropy(head(x), targets)
    expected = torch.autograd.grad(plain, [x, *head.parameters()])
    chunked = chunked_cross_entropy(x, head, targets, chunk=chunk)
    torch.testing.assert_close(chunked, plain, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(torch.autograd.grad(chunked, [x, *head.parameters()]), expected, rtol=1e-12, atol=1e-12)


class Tied(nn.Module):
    """A linear head without its own parameter, as the tied head of the backbones."""

    is_linear = True

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self._shared = (weight,)

    @property
    def weight(self) -> torch.Tensor:
        return self._shared[0]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.weight)


class Capped(nn.Linear):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return torch.tanh(super().forward(input))


class CappedTied(Tied):
    """Inherits `is_linear = True`, which is not true of its own `forward`."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(super().forward(x))


class Optional(Tied):
    """A head that is linear or not, set per instance."""

    def __init__(self, weight: torch.Tensor, cap: float | None) -> None:
        super().__init__(weight)
        self.cap = cap

    @property
    def is_linear(self) -> bool:
        return self.cap is None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = super().forward(x)
        return y if self.cap is None else self.cap * torch.tanh(y / self.cap)


class Bias(Tied):
    """Adds no `forward`, so it is as linear as its parent."""

    bias = torch.zeros(7)


class Wrapped(nn.Module):
    """A head without its own weight."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 7)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x)


def with_pre_hook() -> nn.Linear:
    head = nn.Linear(4, 7)
    head.register_forward_pre_hook(lambda module, inputs: None)
    return head


def with_hook() -> nn.Linear:
    head = nn.Linear(4, 7)
    head.register_forward_hook(lambda module, inputs, logits: 2 * logits)
    return head


def with_patched_forward() -> nn.Linear:
    head = nn.Linear(4, 7)
    vars(head)["forward"] = lambda x: 2 * nn.functional.linear(x, head.weight, head.bias)
    return head


def test_linear_map_finds_the_weight_and_bias_of_linear_heads() -> None:
    plain, bare = nn.Linear(4, 7), nn.Linear(4, 7, bias=False)
    assert linear_map(plain) == (plain.weight, plain.bias)
    assert linear_map(bare) == (bare.weight, None)
    weight = nn.Parameter(torch.ones(7, 4))
    assert linear_map(Tied(weight)) == (weight, None)
    assert linear_map(Bias(weight)) == (weight, Bias.bias)
    assert linear_map(Optional(weight, None)) == (weight, None)
    tied = lmzoo.create_model("gpt2", vocab_size=7, d_model=4, n_heads=1, n_layers=1)
    assert linear_map(tied.head) == (tied.state_dict(keep_vars=True)["tokens.weight"], None)
    untied = lmzoo.create_model("gpt2", vocab_size=7, d_model=4, n_heads=1, n_layers=1, tie_embeddings=False)
    assert linear_map(untied.head) == (untied.head.weight, None)


@pytest.mark.parametrize(
    "head",
    [
        Capped(4, 7),
        CappedTied(torch.ones(7, 4)),
        Optional(torch.ones(7, 4), 1.0),
        Wrapped(),
        nn.Identity(),
        nn.Sequential(nn.Linear(4, 7), nn.ReLU()),
        with_hook(),
        with_pre_hook(),
        with_patched_forward(),
    ],
    ids=lambda head: type(head).__name__,
)
def test_linear_map_is_none_for_heads_that_compute_anything_else(head: nn.Module) -> None:
    assert linear_map(head) is None


def test_chunked_cross_entropy_compiles_with_every_kind_of_head() -> None:
    x, _, targets = case(3)
    weight = torch.randn(7, 4, dtype=torch.float64)
    heads = (nn.Linear(4, 7), Capped(4, 7), Tied(weight), CappedTied(weight), Optional(weight, None), Wrapped())
    for head in (head.double() for head in heads):

        def loss(x: torch.Tensor, chunk: int, head: nn.Module = head) -> torch.Tensor:
            return chunked_cross_entropy(x, head, targets, chunk=chunk)

        compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(compiled(x, 5), loss(x, 100))


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Linear(4, 7, bias=False),
        lambda: Tied(nn.Parameter(torch.randn(7, 4))),
        lambda: Capped(4, 7),
        lambda: CappedTied(nn.Parameter(torch.randn(7, 4))),
        Wrapped,
        lambda: torch.nn.utils.parametrizations.weight_norm(nn.Linear(4, 7)),
        with_hook,
        with_patched_forward,
    ],
)
@pytest.mark.parametrize("bf16", [False, True])
def test_chunked_cross_entropy_equals_plain_for_every_kind_of_head(make: Callable[[], nn.Module], bf16: bool) -> None:
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


def test_chunked_cross_entropy_in_a_model_with_a_large_vocabulary() -> None:
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


def test_chunked_cross_entropy_never_holds_all_logits() -> None:
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


def test_cross_entropy_sums_low_precision_logits_in_float32() -> None:
    logits = torch.zeros(1, 4096, 512, dtype=torch.bfloat16)
    loss = cross_entropy(logits, torch.zeros(1, 4096, dtype=torch.long))
    assert loss.dtype == torch.float32
    assert abs(loss.item() - math.log(512)) < 1e-5


def test_ignore_index_is_minus_100() -> None:
    assert cross_entropy(torch.zeros(1, 2, 5), torch.tensor([[-100, 3]])).item() == pytest.approx(math.log(5))
    assert IGNORE_INDEX == -100


@pytest.mark.parametrize(
    ("vocab_size", "size"), [(65, 516_222), (8192, 4096), (1 << 25, 1), ((1 << 25) + 1, 1), (1 << 30, 1)]
)
def test_chunk_size_holds_at_most_128_mib_of_logits(vocab_size: int, size: int) -> None:
    assert losses.chunk_size(vocab_size) == size


@pytest.mark.parametrize("make", [lambda: nn.Linear(4, 7), Wrapped])
@pytest.mark.parametrize(("chunk", "chunks"), [(100, [12]), (12, [12]), (11, [11, 1]), (4, [4, 4, 4]), (1, [1] * 12)])
def test_chunked_cross_entropy_holds_one_chunk_at_a_time(
    make: Callable[[], nn.Module], chunk: int, chunks: list[int]
) -> None:
    head, held = make(), []
    head.register_forward_hook(lambda module, inputs, logits: held.append(logits.numel() // 7))
    x, _, targets = case(0)
    loss = chunked_cross_entropy(x.float(), head, targets, chunk=chunk)
    assert held == chunks
    loss.backward()
    assert len(held) == (1 if chunks == [12] else 2 * len(chunks)), "a loss in one chunk is not computed again"


@pytest.mark.parametrize("head", [nn.Linear(4, 7), Wrapped()], ids=["linear", "wrapped"])
def test_chunk_size_of_a_model_depends_only_on_its_vocabulary(head: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    model, idx, targets = model_case()
    model.head, held = head, []
    head.register_forward_hook(lambda module, inputs, logits: held.append(logits.numel() // 7))
    monkeypatch.setattr(losses, "CHUNK_LOGITS", 7 * 5)
    model(idx, targets, return_logits=False)
    assert held == [5, 5, 2]


class Balanced(nn.Module):
    """A block that adds an auxiliary loss, as a layer of experts does."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.linear = nn.Linear(d_model, d_model)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.tanh(self.linear(x))
        auxiliary_loss("balance", y.square().mean())
        return y


class Model(lmzoo.LanguageModel):
    def __init__(self) -> None:
        super().__init__(lmzoo.ModelConfig(vocab_size=7, context_length=6))
        self.tokens = nn.Embedding(7, 4)
        self.blocks = Stack(Balanced(4) for _ in range(2))
        self.head = nn.Linear(4, 7)

    def features(self, idx_BT: torch.Tensor, state: object = None) -> tuple[torch.Tensor, object]:
        ctx = Context(0, idx_BT.shape[1], idx_BT.device, self.dtype)
        x_BTD, _ = self.blocks(self.tokens(idx_BT), None, ctx)
        return x_BTD, state


def model_case() -> tuple[Model, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    model = Model()
    idx, targets = torch.randint(7, (2, 2, 6))
    return model, idx, targets


def by_hand(model: Model, idx: torch.Tensor) -> torch.Tensor:
    """The balance losses of both blocks, summed."""
    first = model.blocks[0](model.tokens(idx))
    return first.square().mean() + model.blocks[1](first).square().mean()


def test_auxiliary_losses_are_minimized_but_not_part_of_the_loss() -> None:
    weight = torch.tensor(3.0, requires_grad=True)
    with collect_auxiliary(True) as named:
        auxiliary_loss("balance", weight * 2)
        auxiliary_loss("balance", weight)
        auxiliary_loss("z", weight**2)
    auxiliary_loss("balance", weight * 100)  # outside of a collection: nothing happens
    assert {name: value.item() for name, value in named.items()} == {"balance": 9.0, "z": 9.0}
    loss = with_auxiliary(weight * 0.5, named)
    loss.backward()
    assert loss.item() == 1.5
    assert weight.grad is not None
    assert weight.grad.item() == 0.5 + 2 + 1 + 6


def test_auxiliary_losses_count_in_training_with_targets_alone() -> None:
    model, idx, targets = model_case()
    plain = cross_entropy(model(idx).logits, targets)
    expected = torch.autograd.grad(plain, model.parameters())
    with_balance = torch.autograd.grad(plain_again(model, idx, targets) + by_hand(model, idx), model.parameters())
    for mode, gradients in ((False, expected), (True, with_balance)):
        loss = model.train(mode)(idx, targets).loss
        torch.testing.assert_close(loss, plain)
        torch.testing.assert_close(torch.autograd.grad(loss, model.parameters()), gradients)
    with reported() as named:
        model.train()(idx)
        model.eval()(idx, targets)
    assert named == {}


def plain_again(model: Model, idx: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return cross_entropy(model(idx).logits, targets)


def test_collect_auxiliary_nested_keeps_each_models_losses_apart() -> None:
    with collect_auxiliary(True) as outer:
        auxiliary_loss("balance", torch.tensor(1.0))
        with collect_auxiliary(True) as inner:
            auxiliary_loss("balance", torch.tensor(5.0))
        with collect_auxiliary(False) as unwanted:  # a teacher in evaluation mode within a model in training
            auxiliary_loss("balance", torch.tensor(7.0))
        auxiliary_loss("balance", torch.tensor(2.0))
    assert (outer["balance"].item(), inner["balance"].item(), unwanted) == (3.0, 5.0, {})


def test_collect_auxiliary_ends_with_an_exception() -> None:
    with pytest.raises(ValueError, match="stop"), collect_auxiliary(True) as named:
        raise ValueError("stop")
    auxiliary_loss("balance", torch.tensor(1.0))
    assert named == {}


def test_collect_auxiliary_and_reported_belong_to_their_thread() -> None:
    both_inside = threading.Barrier(2, timeout=60)

    def one(value: float) -> tuple[float, float]:
        with reported() as logged:
            with collect_auxiliary(True) as named:
                both_inside.wait()
                auxiliary_loss("balance", torch.tensor(value))
                both_inside.wait()
            with_auxiliary(torch.tensor(0.0), named)
            both_inside.wait()
        return named["balance"].item(), logged["balance"].item()

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(one, (1.0, 2.0))) == [(1.0, 1.0), (2.0, 2.0)]


def test_reported_sums_over_layers_and_forward_passes() -> None:
    model, idx, targets = model_case()
    expected = by_hand(model, idx).detach()
    with reported() as outer:
        model(idx, targets)
        model(idx, targets, return_logits=False)
        with reported() as inner:
            model(idx, targets)
        model(idx, targets)
    model(idx, targets)  # outside of the block: not reported
    torch.testing.assert_close(inner, {"balance": expected})
    torch.testing.assert_close(outer, {"balance": 3 * expected})
    assert not inner["balance"].requires_grad


def test_reported_survives_compilation() -> None:
    model, idx, targets = model_case()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    expected = by_hand(model, idx).detach()
    for _ in range(2):
        with reported() as named:
            compiled(idx, targets)
        torch.testing.assert_close(named, {"balance": expected})
    compiled(idx, targets).loss.backward()
    found = [p.grad for p in model.parameters()]
    torch.testing.assert_close(found, list(torch.autograd.grad(model(idx, targets).loss, model.parameters())))


def test_auxiliary_losses_are_counted_once_under_activation_checkpointing() -> None:
    model, idx, targets = model_case()
    results = []
    for enabled in (False, True):
        with activation_checkpointing(model, enabled), reported() as named:
            gradients = torch.autograd.grad(model(idx, targets).loss, model.parameters())  # blocks run again in here
        results.append((gradients, named))
    torch.testing.assert_close(results[1], results[0], rtol=0, atol=0)
