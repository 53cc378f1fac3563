"""The tree of a drawing: boxes, chains, branches and repeats, each with its cost. It is plain data."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias


@dataclass(frozen=True)
class Cost:
    """Parameters, each counted where it first appears; FLOPs per token; bytes of one row's decoding state."""

    params: int = 0
    flops: float = 0.0
    state_bytes: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.params + other.params, self.flops + other.flops, self.state_bytes + other.state_bytes)

    def __mul__(self, times: int) -> Cost:
        return Cost(self.params * times, self.flops * times, self.state_bytes * times)

    def __sub__(self, other: Cost) -> Cost:
        return self + other * -1


@dataclass(frozen=True, kw_only=True)
class Box:
    """One module: its name in the module that holds it, its class, and its settings in words.

    `parts` are its children where they are drawn, in the order in which they were made; what they do not account for
    is the module's own.
    """

    name: str
    title: str
    settings: tuple[str, ...] = ()
    cost: Cost
    parts: tuple[Node, ...] = ()
    type: str = field(default="box", init=False)


@dataclass(frozen=True, kw_only=True)
class Chain:
    """Parts in sequence."""

    parts: tuple[Node, ...]
    cost: Cost
    type: str = field(default="chain", init=False)


@dataclass(frozen=True, kw_only=True)
class Branch:
    """A residual branch: `x + after(inner(before(x)))`."""

    before: Node | None
    inner: Node
    after: Node | None
    cost: Cost
    type: str = field(default="branch", init=False)

    @property
    def parts(self) -> tuple[Node, ...]:
        """The parts of the branch, in order."""
        return tuple(part for part in (self.before, self.inner, self.after) if part is not None)


@dataclass(frozen=True, kw_only=True)
class Fork:
    """Residual branches side by side: all read the same x, and their sum is added to it."""

    parts: tuple[Node, ...]
    cost: Cost
    type: str = field(default="fork", init=False)


@dataclass(frozen=True, kw_only=True)
class Repeat:
    """Parts in sequence, `times` times over: blocks of one kind, or a period of several kinds. `cost` is of them all.

    `calls` is not 1 around blocks that all run more or less than once per token, with the same weights.
    """

    times: int = 1
    calls: float = 1.0
    parts: tuple[Node, ...]
    cost: Cost
    type: str = field(default="repeat", init=False)


Node: TypeAlias = Box | Chain | Branch | Fork | Repeat


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A model as a tree. FLOPs are those of a token in a sequence of `T`, states those after `T` tokens."""

    family: str
    T: int
    model: Box

    def to_dict(self) -> dict[str, Any]:
        """The tree as dicts and lists; each node has its `type`."""
        return dataclasses.asdict(self)


def own_cost(node: Node) -> Cost:
    """The cost of a node that its parts do not account for."""
    parts = total(node.parts)
    return node.cost - (parts * node.times if isinstance(node, Repeat) else parts)


def total(nodes: Sequence[Node]) -> Cost:
    """The sum of the nodes' costs."""
    return sum((node.cost for node in nodes), Cost())


def words_of(calls: float) -> str:
    """A number of runs per token in words."""
    return f"runs {calls:g} times per token" if calls else "runs in training alone"
