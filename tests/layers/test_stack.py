"""The composers of layers: order, residual forms, states, and traits that are read from the module tree."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lmzoo.layers import stack
from lmzoo.layers.attention import Attention
from lmzoo.layers.context import Context
from lmzoo.layers.layer import Layer
from lmzoo.layers.lstm import LSTM
from lmzoo.layers.mlp import MLP
from lmzoo.layers.norm import RMSNorm
from lmzoo.layers.short_conv import ShortConv
from lmzoo.layers.stack import Parallel, Residual, Stack
from tests.layers.decoded import context, in_one_call, in_pieces, perturbed, random


class Carrying(Layer):
    """Returns the product of its input and the carried value, and replaces the carried value by it."""

    reach = 1

    def __init__(self) -> None:
        super().__init__()
        self.own("scale", (4,), lambda w, generator: w.fill_(1.5))

    def init_state(self, batch_size: int, max_len: int, like: Tensor) -> tuple[()]:
        return ()

    def forward(self, x_BTD: Tensor, state: tuple[()] | None, ctx: Context) -> tuple[Tensor, tuple[()] | None]:
        y_BTD = torch.sin(x_BTD * self.scale) * ctx.carry.get("factor", 1.0)
        ctx.carry["factor"] = y_BTD
        return y_BTD, state


def test_stack_applies_layers_in_order_with_and_without_a_state() -> None:
    layers = Stack([LSTM(4), nn.Tanh(), ShortConv(4, 3)])
    perturbed(layers)
    x = random(2, 7, 4)
    expected, _ = layers[0](x, None, context(x))
    expected, _ = layers[2](torch.tanh(expected), None, context(x))
    torch.testing.assert_close(in_one_call(layers, x), expected)
    torch.testing.assert_close(in_pieces(layers, x, 3, 1, 1, 2), expected)


@pytest.mark.parametrize(
    ("residual", "expected"),
    [
        (lambda: Residual(nn.Tanh(), nn.Sigmoid()), lambda x: x + x.tanh().sigmoid()),
        (lambda: Residual(None, nn.Sigmoid(), nn.Tanh()), lambda x: x + x.sigmoid().tanh()),
        (
            lambda: Residual(nn.Tanh(), nn.Sigmoid(), nn.Softplus()),
            lambda x: x + nn.functional.softplus(x.tanh().sigmoid()),
        ),
    ],
    ids=["pre-norm", "post-norm", "sandwich"],
)
def test_residual_adds_its_branch(residual, expected) -> None:
    x = random(2, 3, 4)
    torch.testing.assert_close(in_one_call(residual(), x), expected(x))


def test_parallel_branches_all_read_x() -> None:
    layer = perturbed(Parallel(Residual(RMSNorm(4), LSTM(4)), Residual(nn.Tanh(), nn.Sigmoid())))
    x = random(2, 6, 4)
    lstm, _ = layer[0].inner(layer[0].before(x), None, context(x))
    torch.testing.assert_close(in_one_call(layer, x), x + lstm + x.tanh().sigmoid())
    torch.testing.assert_close(in_pieces(layer, x, 4, 2), in_one_call(layer, x))


def test_stack_with_checkpoints_gives_the_same_gradients_with_carried_values() -> None:
    """Each block reads the value of the previous block and replaces it: recomputation must not see later values."""
    layers = Stack(Stack([Carrying()]) for _ in range(4)).double()
    x = random(2, 3, 4).requires_grad_()
    gradients = []
    for checkpoints in (False, True):
        layers.checkpoints = checkpoints
        y_BTD, state = layers(x, None, context(x))
        assert state is None
        gradients.append(torch.autograd.grad(y_BTD.sum(), [x, *layers.parameters()]))
    for plain, again in zip(*gradients, strict=True):
        assert torch.equal(plain, again)


def test_stack_with_checkpoints_runs_its_layers_again_in_the_backward_pass_alone() -> None:
    class Counted(nn.Module):
        calls = 0

        def forward(self, x_BTD: Tensor) -> Tensor:
            Counted.calls += 1
            return x_BTD.sin()

    layers, x = Stack([Counted()]), random(2, 3, 4).requires_grad_()
    layers.checkpoints = True
    layers(x, None, context(x))[0].sum().backward()
    assert Counted.calls == 2
    with torch.no_grad():
        layers(x, None, context(x))
    layers(x, layers.init_state(2, 3, x), context(x))[0].sum().backward()
    assert Counted.calls == 4


def test_blocks_of_are_the_layers_of_the_outermost_stacks() -> None:
    model = nn.Module()
    model.blocks = Stack([Stack([nn.Tanh()]), Residual(None, Stack([nn.Tanh()]))])
    model.more = nn.ModuleDict({"inner": Stack([nn.Sigmoid()])})
    assert stack.blocks_of(model) == [model.blocks[0], model.blocks[1], model.more["inner"][0]]


def test_kind_is_equal_for_the_same_classes_shapes_and_switches() -> None:
    def block(d_model: int = 8, d_ff: int = 8, window: int | None = None, **options: Any) -> Stack:
        return Stack([Residual(RMSNorm(d_model), Attention(d_model, 2, window=window)), MLP(d_model, d_ff, **options)])

    assert stack.kind(block()) == stack.kind(block())
    assert hash(stack.kind(block())) == hash(stack.kind(block()))
    others = [
        block(d_ff=16),
        block(d_model=16),
        block(window=4),
        block(bias=True),
        block(gated=False, d_ff=16),
        block(activation=torch.tanh),
        Stack([Residual(RMSNorm(8), LSTM(8)), MLP(8, 8)]),
        Stack(list(reversed(block()))),
    ]
    assert len({stack.kind(other) for other in [block(), *others]}) == len(others) + 1
    assert stack.kind(Stack([nn.Tanh()])) != stack.kind(Stack([nn.Sigmoid()]))
    assert stack.kind(block(window=4)) == stack.kind(block(window=5)), "a number may differ by depth"


def test_reach_adds_up_in_sequence_and_is_the_maximum_in_parallel() -> None:
    window, conv = Attention(8, 2, window=5), ShortConv(8, 4)
    assert stack.reach(MLP(8, 8)) == 1
    assert stack.reach(Stack([Residual(RMSNorm(8), window), Residual(None, conv)])) == 5 + 3
    assert stack.reach(Parallel(Residual(None, window), Residual(None, conv))) == 5
    assert stack.reach(Stack([window, LSTM(8)])) is None


def test_chooses_if_a_part_declares_it() -> None:
    chooser = MLP(8, 12)
    assert not stack.chooses(Stack([Residual(None, chooser)]))
    chooser.chooses = True
    assert stack.chooses(Stack([Residual(None, MLP(8, 12)), Parallel(Residual(None, chooser))]))


def test_state_growth_is_the_fastest_of_the_parts() -> None:
    assert stack.state_growth(Stack([MLP(8, 8)])) == "none"
    assert stack.state_growth(Stack([LSTM(8), Attention(8, 2, window=5)])) == "constant"
    assert stack.state_growth(Stack([LSTM(8), Attention(8, 2)])) == "linear"


def test_has_state_is_false_for_a_mixer_without_one() -> None:
    class Stateless(Layer):
        pass

    assert stack.has_state(Stack([Residual(RMSNorm(8), LSTM(8)), MLP(8, 8)]))
    assert not stack.has_state(Stack([Residual(RMSNorm(8), Stateless()), LSTM(8)]))


class NeedsState(Layer):
    """A layer whose `forward` needs a state, without `init_state`."""

    def forward(self, x_BTD: Tensor, state: Any, ctx: Context) -> tuple[Tensor, Any]:
        return x_BTD, state


class NeedsNoState(Layer):
    """A layer with `init_state` whose `forward` takes no state."""

    def init_state(self, batch_size: int, max_len: int, like: Tensor) -> tuple[()]:
        return ()

    def forward(self, x_BTD: Tensor) -> Tensor:
        return x_BTD


@pytest.mark.parametrize(
    "compose", [lambda layer: Stack([layer]), lambda layer: Residual(None, layer)], ids=["Stack", "Residual"]
)
def test_require_layer_compares_forward_with_init_state(compose) -> None:
    with pytest.raises(TypeError, match=r"^NeedsState has no init_state, so its forward is called with x_BTD alone: "):
        compose(NeedsState())
    with pytest.raises(
        TypeError, match=r"^NeedsNoState has init_state, so its forward must take \(x_BTD, state, ctx\)$"
    ):
        compose(NeedsNoState())
    with pytest.raises(TypeError, match=r" takes layers, not a list; Stack\(\[a, b\]\) makes one layer of several$"):
        compose([nn.Tanh()])


def test_stack_takes_one_list_of_layers() -> None:
    for wrong in ((nn.Tanh(), nn.Tanh()), (nn.Tanh(),), ([nn.Tanh()], nn.Tanh())):
        with pytest.raises(TypeError, match=r"^Stack takes one list of layers: Stack\(\[a, b\]\)$"):
            Stack(*wrong)
    layers = Stack([nn.Tanh(), nn.Sigmoid()])
    assert len(Stack(layers)) == len(Stack(layer for layer in layers)) == len(layers[:]) == 2


def test_parallel_takes_residual_branches() -> None:
    branch = Residual(None, nn.Tanh())
    for wrong in ([branch, branch], nn.Tanh()):
        with pytest.raises(TypeError, match=rf"^Parallel takes residual branches, .*, not a {type(wrong).__name__}$"):
            Parallel(wrong)
