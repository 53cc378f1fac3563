"""Draws a model: converts its module tree to the tree of the drawing.

`Stack`, `Residual`, `Parallel` and `Branches` show how layers are composed; each layer declares its parameters, FLOPs
and state. Blocks of the same kind are drawn once, with the number of repetitions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Iterator, Mapping, Sequence
from itertools import groupby

import torch
from torch import nn

from lmzoo.drawing.tree import (
    TOKEN_IDS,
    Box,
    Branch,
    Chain,
    Cost,
    Drawing,
    Fork,
    Node,
    Repeat,
    Sum,
    each_run,
    total,
    words_of,
)
from lmzoo.flops import child_calls, declared_flops
from lmzoo.layers.branches import Branches
from lmzoo.layers.context import Rope
from lmzoo.layers.head import TiedHead
from lmzoo.layers.layer import Layer
from lmzoo.layers.stack import Parallel, Residual, init_state, kind
from lmzoo.model import LanguageModel
from lmzoo.state import nbytes

LISTS = (nn.ModuleList, nn.Sequential)  # `Stack`, `Parallel` and `Branches` are module lists
NOT_DRAWN = (nn.Identity, nn.Dropout)  # unless in a list, where the order of execution is known
# Modules between the tokens and the first block: a family may create them after the parts of its frame.
EARLY = ("tokens", "positions", "norm_0")
# Words for attributes of layers, shown where they are neither None nor False; `{}` stands for the value.
SETTINGS: Mapping[str, str] = {
    "n_heads": "{} heads",
    "num_heads": "{} heads",  # in torch's own layers
    "n_kv_heads": "{} key/value heads",
    "head_dim": "head width {}",
    "n_experts": "{} experts",
    "top_k": "top {}",
    "window": "window {}",
    "rope": "rotary positions",
    "gated": "gated",
    "activation": "{}",
    "d_ff": "inner width {}",
    "d_state": "{} states per channel",
}


def draw(model: LanguageModel, T: int | None = None) -> Drawing:
    """Returns the drawing of a model, with costs for sequences of `T` tokens (default `context_length`).

    The model can be on the meta device, where its weights need no memory.
    """
    T = model.config.context_length if T is None else T
    artist = _Artist(model, T)
    cost = Cost(model.num_params(), model.flops_per_token(T), model.state_bytes(T))
    children = _children(model)
    early = [name for name in EARLY if name in children]
    order = [*early, *(name for name in children if name not in (*early, "head")), "head"]
    children = {name: children[name] for name in order if name in children}
    parts = artist.parts(children, model, T, 1.0)
    if tokens := nbytes(artist.state["tokens"]):
        purpose = "to recompute from" if artist.state["layers"] is None else "for a sliding window"
        parts.append(Box(name="state", title=TOKEN_IDS, settings=(purpose,), cost=Cost(state_bytes=tokens)))
    root = Box(name="", title=type(model).__name__, cost=cost, parts=tuple(parts))
    return Drawing(family=model.family or type(model).__name__, T=T, model=root)


class _Artist:
    """Converts modules to nodes; counts each parameter where it occurs first."""

    def __init__(self, model: LanguageModel, T: int) -> None:
        self.state = model.init_state(1, T)
        self.max_len = T if model.traits.extrapolates else min(T, model.config.context_length)
        self.like = torch.empty(0, device=model.device, dtype=model.dtype)
        self.seen: set[int] = set()

    def parts(self, children: Mapping[str, nn.Module], parent: nn.Module, T: int, times: float) -> list[Node]:
        """Returns the nodes of the children of a module that runs `times` per token; lists of blocks become repeats."""
        calls = child_calls(parent, T)
        found: list[Node] = []
        for name, child in children.items():
            more, length = calls.get(name, (1.0, T))
            if isinstance(child, LISTS) and not isinstance(child, (Parallel, Branches)):
                blocks = self.repeats(child, length, times * more, name)
                cost = each_run(total(blocks), more)
                found += blocks if more == 1 else [Repeat(calls=more, parts=tuple(blocks), cost=cost)]
            elif not isinstance(child, NOT_DRAWN):
                found.append(self.node(child, length, times * more, name, calls=more, expand=_holds_list(child)))
        return found

    def repeats(self, blocks: nn.Module, T: int, times: float, name: str) -> list[Node]:
        """Returns the nodes of a list of blocks; neighbors of one kind and periods are drawn once."""
        modules = [block for block in _children(blocks).values() if not isinstance(block, nn.Identity)]
        nodes = [self.node(block, T, times, expand=not isinstance(block, Layer)) for block in modules]
        keys = [(kind(module), node) for module, node in zip(modules, nodes, strict=True)]
        start, period, count = find_period(keys)
        end = start + period * count
        body = _runs(keys[start : start + period])
        periodic = [Repeat(times=count, parts=tuple(body), cost=total(body) * count)] if count else []
        nodes = [*_runs(keys[:start]), *periodic, *_runs(keys[end:])]
        return [dataclasses.replace(node, name=name) if isinstance(node, Box) else node for node in nodes]

    def node(
        self, module: nn.Module, T: int, times: float, name: str = "", *, calls: float = 1.0, expand: bool = False
    ) -> Node:
        """Returns the node of a module that runs `times` per token and `calls` times per run of its parent module.

        With `expand` the children of a module are drawn even if it is not one of the composers.
        """
        if isinstance(module, Residual):
            before, inner, after = (
                None if part is None else self.node(part, T, times)
                for part in (module.before, module.inner, module.after)
            )
            assert inner is not None
            cost = total([part for part in (before, inner, after) if part is not None])
            return Branch(before=before, inner=inner, after=after, cost=cost)
        if isinstance(module, LISTS):
            kept = [child for child in _children(module).values() if not _does_nothing(child)]
            parts = tuple(self.node(child, T, times, expand=_holds_list(child)) for child in kept)
            composed = Fork if isinstance(module, Parallel) else Sum if isinstance(module, Branches) else Chain
            return composed(parts=parts, cost=total(parts))
        return self.box(module, T, times, name, calls, expand)

    def box(self, module: nn.Module, T: int, times: float, name: str, calls: float, expand: bool) -> Box:
        """Returns the node of a module that is not one of the composers."""
        children = _children(module) if expand and len(_children(module)) > 1 else {}
        own = list(module.parameters(recurse=not children))
        new = {id(parameter): parameter for parameter in own if id(parameter) not in self.seen}
        self.seen |= new.keys()
        parts = tuple(self.parts(children, module, T, times))
        state = nbytes(init_state(module, 1, self.max_len, self.like)) if self.state["layers"] is not None else 0
        cost = Cost(
            sum(parameter.numel() for parameter in new.values()) + total(parts).params,
            times * declared_flops(module, T),
            state if hasattr(module, "init_state") else total(parts).state_bytes,
        )
        notes = ["weights of an earlier part"] if own and not new else []
        if calls != 1:
            notes.append(words_of(calls))
        return Box(
            name=name,
            title=type(module).__name__,
            settings=(*settings_of(module), *notes),
            experts=getattr(module, "n_experts", 0),
            cost=cost,
            parts=parts,
        )


def settings_of(module: nn.Module) -> Iterator[str]:
    """Yields the most important settings of a layer, in words."""
    if isinstance(module, nn.Embedding):
        yield f"{module.num_embeddings} x {module.embedding_dim}"
    elif isinstance(module, (nn.Linear, TiedHead)):
        yield "{1} to {0}".format(*module.weight.shape)
        if isinstance(module, TiedHead):
            yield "weights of the embedding"
    elif isinstance(module, nn.Dropout):
        yield f"{module.p:g}"
    values = vars(module)
    for name, words in SETTINGS.items():
        value = values.get(name, module._modules.get(name))
        if isinstance(value, Rope) and value.fraction < 1:
            words = f"rotary in {100 * value.fraction:.0f} % of a head"
        if value is None or value is False or (name == "n_kv_heads" and value == values.get("n_heads")):
            continue
        setting = words.format(getattr(value, "__name__", value))
        yield setting.removesuffix("s") if value == 1 else setting


def find_period(keys: Sequence[Hashable]) -> tuple[int, int, int]:
    """Returns start, length and number of copies of the period that shortens the sequence most.

    The sequence is `keys[:start]`, the copies of the period, and the rest. Returns (0, 0, 0) if merging runs of equal
    keys is at least as short.
    """
    numbers = [keys.index(key) for key in keys]  # cached, because comparing keys is slow
    best, least = (0, 0, 0), len(list(groupby(numbers)))
    for start in range(len(numbers)):
        for period in range(2, (len(numbers) - start) // 2 + 1):
            body, count = numbers[start : start + period], 1
            while numbers[start + count * period : start + (count + 1) * period] == body:
                count += 1
            pieces = (numbers[:start], body, numbers[start + count * period :])
            runs = sum(len(list(groupby(piece))) for piece in pieces)
            if count > 1 and runs < least:
                best, least = (start, period, count), runs
    return best


def _runs(keys: Sequence[tuple[Hashable, Node]]) -> list[Node]:
    """Merges equal neighbors to one repeat; a single layer without parts stays as it is."""
    found: list[Node] = []
    for (_, node), run in groupby(keys):
        times = len(list(run))
        single = times == 1 and isinstance(node, Box) and not node.parts
        found.append(node if single else Repeat(times=times, parts=(node,), cost=node.cost * times))
    return found


def _children(module: nn.Module) -> dict[str, nn.Module]:
    """Returns the children by name; a child with two names is included twice, because it runs twice."""
    return {name: child for name, child in module._modules.items() if child is not None}


def _holds_list(module: nn.Module) -> bool:
    return any(isinstance(part, LISTS) for part in module.modules())


def _does_nothing(module: nn.Module) -> bool:
    return isinstance(module, nn.Identity) or (isinstance(module, nn.Dropout) and module.p == 0)
