"""Tests of `lmzoo.drawing.modules`: the tree has the same counts as the model, for each structure of models."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from lmzoo import registry, state
from lmzoo.drawing import draw
from lmzoo.drawing.modules import find_period
from lmzoo.drawing.tree import Box, Branch, Chain, Cost, Fork, Node, Repeat, Sum, own_cost, total
from lmzoo.layers.layer import Layer
from lmzoo.layers.mlp import MLP
from lmzoo.layers.norm import RMSNorm
from lmzoo.layers.stack import Residual
from tests.drawing.models import (
    MODELS,
    A,
    Looped,
    M,
    Nested,
    Words,
    blocks_of,
    drawing_of,
    make,
    plain,
    shape_of,
    words,
)


def blocks_in(nodes: tuple[Node, ...]) -> int:
    return sum(node.times * blocks_in(node.parts) if isinstance(node, Repeat) else 1 for node in nodes)


@pytest.mark.parametrize("name", MODELS)
def test_draw_sums_to_what_the_model_counts(name: str) -> None:
    model, drawing = make(name), drawing_of(name)
    T, root = model.config.context_length, drawing.model
    parts = total(root.parts)
    assert parts.params == model.num_params(), "a parameter is missing or counted twice"
    assert parts.flops == pytest.approx(model.flops_per_token(T), rel=1e-12)
    # The state of a model that keeps it outside of layers is not part of any child.
    layers = state.nbytes(model.init_state(1, T)["layers"])
    in_layers = any(box.cost.state_bytes for box in root.parts if not (isinstance(box, Box) and box.name == "state"))
    assert parts.state_bytes == model.state_bytes(T) - (0 if in_layers else layers)
    assert root.cost == Cost(model.num_params(), model.flops_per_token(T), model.state_bytes(T))


DEEP = [name for name in MODELS if hasattr(registry.model_class(name.split(".")[0]).config_class, "n_layers")]


@pytest.mark.parametrize("name", DEEP)
def test_draw_has_every_block(name: str) -> None:
    blocks = tuple(part for part in drawing_of(name).model.parts if isinstance(part, Repeat))
    assert blocks_in(blocks) == registry.model_config(name, vocab_size=65).n_layers


def test_draw_groups_blocks_of_one_kind() -> None:
    assert blocks_of(words("a", 4)) == [(4, A)]
    assert blocks_of(words("am", 2)) == [(1, A), (1, M)]
    assert blocks_of(words("ammmm", 5)) == [(1, A), (4, M)]
    assert blocks_of(words("mma", 9)) == [(3, (2, M), (1, A))]
    assert blocks_of(words("mma", 8)) == [(2, (2, M), (1, A)), (2, M)]
    assert blocks_of(words("mmmamm", 12)) == [(2, (3, M), (1, A), (2, M))]
    assert blocks_of(words("wam", 6)) == [(2, (1, A), (1, A), (1, M))], "a window is another kind of attention"
    assert blocks_of(words("p", 2)) == [(2, [["LayerNorm", "Attention"], ["LayerNorm", "MLP"]])]


def test_draw_tells_blocks_apart_by_numbers_that_it_shows() -> None:
    """Windows of 8, 9 and 10 have the same block class, but one box for the three would show wrong numbers."""
    settings = [part.parts[0].parts[1].settings for part in draw(words("v", 3)).model.parts[1:-2]]
    assert [words[-1] for words in settings] == ["window 8", "window 9", "window 10"]


class Signed(Layer):
    """A layer with a switch that the drawing does not show."""

    reach = 1

    def __init__(self, negative: bool) -> None:
        super().__init__()
        self.negative = negative

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        return -x_BTD if self.negative else x_BTD


class Alternating(Words):
    def block(self, config: Any, layer: int) -> nn.Module:
        return Residual(None, Signed(layer % 2 == 1))


def test_draw_tells_blocks_apart_by_switches_that_it_does_not_show() -> None:
    assert blocks_of(words("a", 6, Alternating)) == [(3, (1, ["Signed"]), (1, ["Signed"]))]


class Stateless(Layer):
    """A mixer that reads all earlier tokens and has no state: decoding recomputes."""

    def flops(self, T: int) -> float:
        return 1.0


class Recomputing(Words):
    def block(self, config: Any, layer: int) -> nn.Module:
        return Residual(None, Stateless()) if layer else super().block(config, layer)


def test_draw_counts_no_state_that_decoding_does_not_keep() -> None:
    model = words("a", 2, Recomputing)
    *others, tokens = draw(model).model.parts
    assert total(others).state_bytes == 0
    assert tokens.cost.state_bytes == model.state_bytes(32) > 0
    assert tokens.settings == ("to recompute from",)


def test_draw_counts_states_up_to_the_window_of_a_model_that_ends() -> None:
    model = make("gpt2.tiny")
    assert total(draw(model, T=100).model.parts).state_bytes == model.state_bytes(100)
    assert draw(model, T=100).model.parts[2].cost == draw(model, T=64).model.parts[2].cost + Cost(
        flops=2 * 4 * 64 * (100 - 64)
    )


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ("", (0, 0, 0)),
        ("a", (0, 0, 0)),
        ("aaaa", (0, 0, 0)),  # one run
        ("aabb", (0, 0, 0)),
        ("abab", (0, 2, 2)),
        ("aabaabaa", (0, 3, 2)),
        ("xabab", (1, 2, 2)),
        ("aaabaaaaabaa", (0, 6, 2)),
        ("dabcabc", (1, 3, 2)),
    ],
)
def test_find_period(keys: str, expected: tuple[int, int, int]) -> None:
    assert find_period(keys) == expected


def test_draw_keeps_before_inner_and_after_apart() -> None:
    block = draw(words("m", 1)).model.parts[1].parts[0]
    assert isinstance(block, Chain)
    sandwich, bare = block.parts
    assert isinstance(sandwich, Branch)
    assert isinstance(bare, Branch)
    assert [part and part.title for part in (sandwich.before, sandwich.inner, sandwich.after)] == [
        "RMSNorm",
        "Mamba",
        "RMSNorm",
    ]
    assert (bare.before, bare.inner.title, bare.after) == (None, "MLP", None)
    fork = draw(words("p", 1)).model.parts[1].parts[0]
    assert isinstance(fork, Fork)
    assert [branch.inner.settings for branch in fork.parts] == [
        ("2 heads", "1 key/value head", "head width 8", "rotary in 25 % of a head"),
        ("silu", "inner width 24"),
    ]


def test_draw_puts_layers_that_share_a_norm_side_by_side() -> None:
    branch = draw(words("b", 1)).model.parts[1].parts[0]
    assert isinstance(branch, Branch)
    assert isinstance(branch.inner, Sum)
    assert [part.title for part in branch.inner.parts if isinstance(part, Box)] == ["Attention", "MLP"]
    assert own_cost(branch.inner) == Cost()


def test_draw_counts_how_often_a_part_runs() -> None:
    model = words("a", 2, Looped)
    once, drawing = draw(words("a", 2)).model.parts, draw(model)
    _, loop, _, second_head, head = drawing.model.parts
    assert isinstance(loop, Repeat)
    assert (loop.calls, loop.parts[0].times) == (3, 2)
    # Three runs per token: three times the FLOPs, and a decoding state for each.
    assert loop.cost == Cost(once[1].cost.params, 3 * once[1].cost.flops, 3 * once[1].cost.state_bytes)
    assert (second_head.settings[-1], second_head.cost) == ("runs in training alone", Cost(16 * 65))
    assert total(drawing.model.parts).flops == model.flops_per_token(32) == drawing.model.cost.flops
    assert head.cost.flops == 2 * 16 * 65


class Shared(Words):
    """A model with one shared block under several names."""

    def block(self, config: Any, layer: int) -> nn.Module:
        return super().block(config, layer) if layer == 0 else self.__dict__["first"]

    def __init__(self, config: Any) -> None:
        self.__dict__["first"] = Residual(RMSNorm(config.d_model), MLP(config.d_model, 24))
        super().__init__(config)


def test_draw_counts_shared_weights_once() -> None:
    model = words("a", 4, Shared)
    first, second, others = draw(model).model.parts[1:4]
    assert first.cost.params > 0
    assert second.cost.params == 16 + 3 * 16 * 24
    assert (others.times, others.cost.params) == (2, 0)
    assert others.parts[0].inner.settings[-1] == "weights of an earlier part"
    assert total(draw(model).model.parts).params == model.num_params()


def test_draw_takes_models_of_other_modules_apart_by_their_children() -> None:
    model = plain()
    root = draw(model).model
    assert [shape_of(part) for part in root.parts] == [
        "Embedding",
        (3, "TransformerEncoderLayer"),
        "LayerNorm",
        "Linear",
        "token ids",
    ]
    block = root.parts[1].parts[0]
    assert [part.name for part in block.parts] == ["self_attn", "linear1", "linear2", "norm1", "norm2"]
    assert block.cost.params == sum(p.numel() for p in model.layers[0].parameters())
    assert own_cost(root).params == 16 * 8
    assert own_cost(root).flops > 0, "torch counts products in attention that no module declares"
    assert [part.name for part in root.parts[-3:-1]] == ["head", "head"]
    assert root.parts[-1].cost.state_bytes == model.state_bytes(16) == 16 * 8


def test_draw_finds_blocks_inside_other_modules() -> None:
    model = words("a", 1, Nested)
    inner = draw(model).model.parts[1]
    assert isinstance(inner, Box)
    assert shape_of(inner.parts[1]) == (3, A)
    assert own_cost(inner) == Cost()
    assert inner.cost.state_bytes == model.state_bytes(32)


def names_of(family: str) -> list[str]:
    parts = drawing_of(f"{family}.1m").model.parts
    return [part.name if isinstance(part, Box) else "blocks" for part in parts]


def test_draw_puts_what_comes_before_the_blocks_before_them() -> None:
    """Both families create these modules after those of the frame."""
    assert names_of("gpt_neo") == ["tokens", "positions", "blocks", "blocks", "norm", "head", "state"]
    assert names_of("rwkv7") == ["tokens", "norm_0", "blocks", "blocks", "norm", "head"]


def test_draw_opens_a_layer_of_a_block_that_holds_blocks() -> None:
    (chunks,) = (part.parts[0] for part in drawing_of("hnet.1m").model.parts[2:3])
    (chunks,) = chunks.parts
    main = next(part for part in chunks.parts if isinstance(part, Repeat))
    assert main.calls == 0.25
    assert blocks_in(main.parts[:1]) == 6
