"""The tree of a drawing as plain data: boxes, chains, branches, forks, sums and repeats, each with its cost."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

TOKEN_IDS = "token ids"  # title of the box of the ids that a model keeps to read them again: it is no module


@dataclass(frozen=True)
class Cost:
    """Parameters (each counted where it occurs first), FLOPs per token, and bytes of one row's decoding state."""

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
    """One module: its name in its parent module, its class (`title`), and its settings in words.

    `parts` are its children, if they are drawn, in the order in which they were created. `own_cost` is the rest of its
    cost. `experts` is the number of experts that a router chooses from, 0 without one.
    """

    name: str
    title: str
    settings: tuple[str, ...] = ()
    experts: int = 0
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
    """Parallel residual branches: all read the same x, and their sum is added to it."""

    parts: tuple[Node, ...]
    cost: Cost
    type: str = field(default="fork", init=False)


@dataclass(frozen=True, kw_only=True)
class Sum:
    """Parts side by side: all read the same x, and their results are added."""

    parts: tuple[Node, ...]
    cost: Cost
    type: str = field(default="sum", init=False)


@dataclass(frozen=True, kw_only=True)
class Repeat:
    """Parts in sequence, repeated `times` times: blocks of one kind, or a period of several kinds; `cost` is the sum.

    `calls` is how often the blocks run per token with the same weights, if not once.
    """

    times: int = 1
    calls: float = 1.0
    parts: tuple[Node, ...]
    cost: Cost
    type: str = field(default="repeat", init=False)


Node: TypeAlias = Box | Chain | Branch | Fork | Sum | Repeat


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A model as a tree. FLOPs are per token in a sequence of `T`; states are after `T` tokens."""

    family: str
    T: int
    model: Box

    def to_dict(self) -> dict[str, Any]:
        """Converts the tree to dicts and lists; each node has its `type`."""
        return dataclasses.asdict(self)


def own_cost(node: Node) -> Cost:
    """Returns the cost of a node minus the cost of its parts."""
    parts = total(node.parts)
    return node.cost - (each_run(parts, node.calls) * node.times if isinstance(node, Repeat) else parts)


def each_run(cost: Cost, calls: float) -> Cost:
    """Returns the cost of parts that run `calls` times per token: each run has a decoding state of its own."""
    return dataclasses.replace(cost, state_bytes=round(max(1.0, calls) * cost.state_bytes))


def total(nodes: Sequence[Node]) -> Cost:
    """Returns the sum of the nodes' costs."""
    return sum((node.cost for node in nodes), Cost())


def words_of(calls: float) -> str:
    """Returns a number of runs per token in words."""
    return f"runs {calls:g} times per token" if calls else "runs in training alone"
