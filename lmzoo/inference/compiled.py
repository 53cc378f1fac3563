"""One step of decoding as one compiled function, for every architecture: embedding to logits, the state included.

Eager, a step of a small model is a few hundred calls, most of which take longer to make than to do. Compiled, the calls
are fused into a few loops, and a state's buffers are written in place. torch.compile sees the state as what it is made
of: tensors, and counts that grow from step to step.
"""

from __future__ import annotations

import types
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lmzoo.errors import InputError
from lmzoo.model import LanguageModel
from lmzoo.state import State, TimeBuffer, map_leaves

# A result that took more operations than this is kept, not computed again for each of its readers: a norm would else be
# computed anew for every row of the matrix that follows it.
OPTIONS: dict[str, Any] = {"realize_opcount_threshold": 3}
_OFFSET = 2  # torch.compile takes the sizes 0 and 1 for constants


class Leaves(NamedTuple):
    """What a state is made of, each in the order of its tree."""

    tensors: list[Tensor]  # those of the time buffers included
    lengths: list[int]  # of the time buffers
    numbers: list[int]  # that stand by themselves: positions


class CompiledStep:
    """`model`'s step. Its first call takes some 10 to 60 seconds, and so does the first with another number of rows."""

    def __init__(self, model: LanguageModel) -> None:
        self._features, self._head = model.features, model.head
        self._compiled: dict[tuple[int, tuple[tuple[int, ...], ...]], Callable[..., Any]] = {}

    def can_take(self, idx: Tensor, layers: State) -> bool:
        """Not a first token, which meets empty buffers, and not where a buffer has to move."""
        if idx.shape[1] != 1 or layers is None:
            return False
        fits: list[bool] = []
        map_leaves(lambda leaf: fits.append(not _is_buffer(leaf) or (leaf.length > 0 and leaf.has_room(1))), layers)
        return all(fits)

    def __call__(self, idx: Tensor, layers: State) -> tuple[Tensor, State]:
        """Logits (B, V) after idx (B, 1), and the next state. Raises `InputError` where it cannot be compiled."""
        tensors, *counts = _leaves(layers)
        different = [sorted(set(group)) for group in counts]
        places = tuple(tuple(values.index(n) for n in group) for values, group in zip(different, counts, strict=True))
        key = (len(idx), places)
        new = key not in self._compiled
        if new:
            self._compiled[key] = self._compile(places, layers)
            map_leaves(_mark_capacity, layers)
        sizes = [[_sized(n) for n in values] for values in different]
        own_idx = idx.clone(memory_format=torch.contiguous_format)  # a slice has the stride of what it is cut from
        try:
            with _compiling(rows=len(idx)) if new else nullcontext():
                logits_BV, changed, numbers = self._compiled[key](own_idx, tensors, sizes)
        except torch._dynamo.exc.TorchDynamoException as error:
            reason = " ".join(str(error).partition("\n\n")[0].split())
            raise InputError(f"this model's step cannot be compiled: {reason}") from error
        return logits_BV, _advanced(layers, iter(changed), iter(numbers))

    def _compile(self, places: tuple[tuple[int, ...], ...], layers: State) -> Callable[..., Any]:
        """The step for states of the shape of `layers`, in which counts of one kind at the same place are equal."""
        features, head = self._features, self._head
        tree = map_leaves(lambda leaf: _Slot(leaf.window) if _is_buffer(leaf) else type(leaf), layers)

        def step(
            idx_B1: Tensor, tensors: list[Tensor], sizes: list[list[Tensor]]
        ) -> tuple[Tensor, list[Tensor], list[int]]:
            counts = [
                [values[place].shape[0] - _OFFSET for place in group]
                for values, group in zip(sizes, places, strict=True)
            ]
            x_B1D, after = features(idx_B1, _filled(tree, tensors, *counts))
            return head(x_B1D[:, -1]), _changed(after), _leaves(after).numbers

        # Compiled code is kept with the function's code object, up to a limit: each model's gets one of its own.
        own = types.FunctionType(step.__code__.replace(), step.__globals__, "step", None, step.__closure__)
        return torch.compile(own, fullgraph=True, options=OPTIONS)


@contextmanager
def _compiling(rows: int) -> Generator[None]:
    """What holds for the first call of a compiled function."""
    from torch._inductor import config  # here, because importing it takes a second

    # Frozen weights may be laid out anew, in the blocks that products with several rows want.
    with warnings.catch_warnings(), config.patch(freezing=rows > 1):
        warnings.simplefilter("ignore")  # torch's own, about itself
        yield


@dataclass(frozen=True)
class _Slot:
    """Where a time buffer belongs in a state's tree."""

    window: int | None


def _is_buffer(leaf: object) -> bool:
    return isinstance(leaf, TimeBuffer)


def _leaves(state: State) -> Leaves:
    leaves = Leaves([], [], [])

    def note(leaf: Any) -> None:
        if isinstance(leaf, TimeBuffer):
            leaves.tensors.append(leaf.data)
            leaves.lengths.append(leaf.length)
        elif isinstance(leaf, Tensor):
            leaves.tensors.append(leaf)
        elif leaf is not None:
            leaves.numbers.append(leaf)

    map_leaves(note, state)
    return leaves


def _changed(state: State) -> list[Tensor]:
    """The tensors that a step makes anew: those of time buffers it writes in place."""
    found: list[Tensor] = []
    map_leaves(lambda leaf: found.append(leaf) if isinstance(leaf, Tensor) else None, state)
    return found


def _filled(tree: State, tensors: Sequence[Tensor], lengths: Sequence[int], numbers: Sequence[int]) -> State:
    """The state of which `tree` is the shape."""
    tensor, length, number = iter(tensors), iter(lengths), iter(numbers)

    def fill(leaf: Any) -> Any:
        if isinstance(leaf, _Slot):
            n = next(length)
            return TimeBuffer(next(tensor), n, leaf.window, [n])
        if issubclass(leaf, Tensor):
            return next(tensor)
        return None if leaf is type(None) else next(number)

    return map_leaves(fill, tree)


def _advanced(state: State, tensors: Iterator[Tensor], numbers: Iterator[int]) -> State:
    """`state` after a step that has written into its buffers and made the other tensors and numbers."""

    def next_of(leaf: Any) -> Any:
        if isinstance(leaf, TimeBuffer):
            return leaf.extended(1)
        return next(tensors) if isinstance(leaf, Tensor) else None if leaf is None else next(numbers)

    return map_leaves(next_of, state)


def _mark_capacity(leaf: Any) -> None:
    """What is compiled for one capacity holds for all."""
    if isinstance(leaf, TimeBuffer):
        torch._dynamo.maybe_mark_dynamic(leaf.data, 1)


def _sized(n: int) -> Tensor:
    """A number as the size of a tensor without entries: so torch.compile takes it for a variable."""
    tensor = torch.empty(n + _OFFSET, 0)
    torch._dynamo.mark_dynamic(tensor, 0)
    return tensor
