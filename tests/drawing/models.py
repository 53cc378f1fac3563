"""Models on the meta device for the tests of drawings, and a short form of a drawing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import torch
from torch import nn

import lmzoo
from lmzoo import configs, registry
from lmzoo.decoder import Decoder, MixerConfig
from lmzoo.drawing import draw
from lmzoo.drawing.tree import Box, Drawing, Node, Repeat
from lmzoo.layers.attention import Attention
from lmzoo.layers.branches import Branches
from lmzoo.layers.context import Rope
from lmzoo.layers.mamba import Mamba
from lmzoo.layers.mlp import MLP
from lmzoo.layers.norm import LayerNorm, RMSNorm
from lmzoo.layers.stack import Parallel, Residual, Stack


def of_each_structure() -> list[str]:
    """Return the deepest of the models whose settings differ in numbers alone, so that every code path is drawn."""
    deepest: dict[Any, tuple[int, str]] = {}
    for name in lmzoo.list_models():
        settings = configs.to_dict(registry.model_config(name, vocab_size=65))
        kinds = ((key, value if isinstance(value, (bool, str)) else type(value)) for key, value in settings.items())
        structure, depth = (name.partition(".")[0], *kinds), settings.get("n_layers", 0)
        if depth > deepest.get(structure, (-1, ""))[0]:
            deepest[structure] = (depth, name)
    return [name for _, name in deepest.values()]


MODELS = of_each_structure()


def make(name: str, **config: Any) -> lmzoo.LanguageModel:
    return lmzoo.create_model(name, device="meta", **{"vocab_size": 65, **config})


@cache
def drawing_of(name: str) -> Drawing:
    return draw(make(name))


@dataclass(frozen=True, kw_only=True)
class WordsConfig(MixerConfig):
    vocab_size: int = 65
    context_length: int = 32
    d_model: int = 16
    words: str = "a"
    window: int = 8


class Words(Decoder):
    """A model with one block per letter of `words`, repeated to the depth."""

    config_class: ClassVar[type[WordsConfig]] = WordsConfig

    def block(self, config: Any, layer: int) -> nn.Module:
        d_model, norm = config.d_model, RMSNorm
        word = config.words[layer % len(config.words)]
        if word == "a":
            return Residual(norm(d_model), Attention(d_model, 2))
        if word in "wv":
            window = config.window + (layer if word == "v" else 0)
            return Residual(norm(d_model), Attention(d_model, 2, window=window))
        if word == "m":
            return Stack([Residual(norm(d_model), Mamba(d_model), norm(d_model)), Residual(None, MLP(d_model, 24))])
        if word == "b":
            return Residual(norm(d_model), Branches(Attention(d_model, 2), MLP(d_model, 24)))
        rope = Rope(fraction=0.25)
        inner = (Attention(d_model, 2, n_kv_heads=1, rope=rope), MLP(d_model, 24, gated=False))
        return Parallel(*(Residual(LayerNorm(d_model), layer) for layer in inner))


def words(text: str, n_layers: int, cls: type[Words] = Words) -> lmzoo.LanguageModel:
    with torch.device("meta"):
        return cls(WordsConfig(words=text, n_layers=n_layers))


class Looped(Words):
    """A model that runs its blocks three times and has a head for training only."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.second_head = nn.Linear(config.d_model, config.vocab_size, bias=False)

    def calls(self, T: int) -> dict[str, tuple[float, int]]:
        return {"blocks": (3.0, T), "second_head": (0.0, T)}


class Plain(lmzoo.LanguageModel):
    """A stateless model of torch modules, with a direct parameter, blocks in a module list and a head of two layers."""

    def __init__(self, config: lmzoo.ModelConfig) -> None:
        super().__init__(config)
        self.tokens = nn.Embedding(config.vocab_size, 8)
        self.positions = nn.Parameter(torch.zeros(config.context_length, 8))
        self.layers = nn.ModuleList(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True) for _ in range(3))
        self.head = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, config.vocab_size))

    def features(self, idx_BT, state=None):  # type: ignore[no-untyped-def]
        x_BTD = self.tokens(idx_BT) + self.positions[: idx_BT.shape[1]]
        mask_TT = nn.Transformer.generate_square_subsequent_mask(idx_BT.shape[1], device=x_BTD.device)
        for layer in self.layers:
            x_BTD = layer(x_BTD, mask_TT, is_causal=True)
        return x_BTD, state


def plain() -> lmzoo.LanguageModel:
    with torch.device("meta"):
        return Plain(lmzoo.ModelConfig(vocab_size=11, context_length=16))


class Inner(nn.Module):
    """A stack inside a module that is not one of the composing layers."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.norm = RMSNorm(d_model)
        self.stack = Stack(Residual(RMSNorm(d_model), Attention(d_model, 2)) for _ in range(3))

    def init_state(self, *arguments: Any) -> Any:
        return self.stack.init_state(*arguments)

    def forward(self, x_BTD: torch.Tensor, state: Any, ctx: Any) -> Any:
        return self.stack(self.norm(x_BTD), state, ctx)


class Nested(Words):
    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.blocks = Inner(config.d_model)  # type: ignore[assignment]


def nodes_of(node: Node) -> Iterator[Node]:
    yield node
    for part in node.parts:
        yield from nodes_of(part)


def shape_of(node: Node) -> Any:
    """Converts a drawing to lists of repeats and chains of class names, for comparison."""
    if isinstance(node, Box):
        return node.title
    parts = [shape_of(part) for part in node.parts]
    return (node.times, *parts) if isinstance(node, Repeat) else parts


def blocks_of(model: lmzoo.LanguageModel) -> list[Any]:
    return [shape_of(part) for part in draw(model).model.parts[1:-2]]


A, M = ["RMSNorm", "Attention"], [["RMSNorm", "Mamba", "RMSNorm"], ["MLP"]]
