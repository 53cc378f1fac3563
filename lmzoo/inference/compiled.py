"""One decoding step as one compiled function, for every architecture: embedding to logits, the state included.

An eager step of a small model is a few hundred calls, most of which take longer to launch than to run. torch.compile
fuses them into a few loops, and a state's time buffers are written in place. The compiled function takes the state
apart: its tensors, and the numbers that grow from step to step.
"""

from __future__ import annotations

import types
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from lmzoo.errors import InputError
from lmzoo.model import LanguageModel
from lmzoo.state import Constant, State, TimeBuffer, leaves_of, with_leaves

# A result that took more operations than this is stored, not computed again by each of its readers: a norm would
# otherwise be computed anew for every row of the matrix product that follows it.
OPTIONS: dict[str, Any] = {"realize_opcount_threshold": 3}
_OFFSET = 2  # torch.compile takes the sizes 0 and 1 for constants
_Places = tuple[tuple[int, ...], ...]  # for each kind of number, where each of them is in the list of different ones


class CompiledStep:
    """`model`'s step. Its first call takes some 10 to 60 seconds, and so does the first with another number of rows."""

    def __init__(self, model: LanguageModel) -> None:
        self._features, self._head = model.features, model.head
        self._compiled: dict[tuple[int, _Places], Callable[..., Any]] = {}

    def can_take(self, idx: Tensor, layers: State) -> bool:
        """True for one token that is not the first, if every buffer has room for it."""
        if idx.shape[1] != 1 or layers is None:
            return False
        return all(leaf.length > 0 and leaf.has_room(1) for leaf in leaves_of(layers) if isinstance(leaf, TimeBuffer))

    def __call__(self, idx: Tensor, layers: State) -> tuple[Tensor, State]:
        """Logits (B, V) after idx (B, 1), and the next state. Raises `InputError` where it cannot be compiled."""
        leaves = leaves_of(layers)
        lengths = [leaf.length for leaf in leaves if isinstance(leaf, TimeBuffer)]
        counts = (lengths, [leaf for leaf in leaves if type(leaf) is int])
        different = [sorted(set(group)) for group in counts]
        places = tuple(tuple(values.index(n) for n in group) for values, group in zip(different, counts, strict=True))
        key = (len(idx), places)
        new = key not in self._compiled
        if new:
            self._compiled[key] = self._compile(places, layers)
            for leaf in leaves:
                if isinstance(leaf, TimeBuffer):
                    torch._dynamo.maybe_mark_dynamic(leaf.data, 1)  # one compilation for every capacity
        own_idx = idx.clone(memory_format=torch.contiguous_format)  # a slice has the stride of what it is cut from
        sizes = [[_sized(n) for n in values] for values in different]
        try:
            with _compiling(rows=len(idx)) if new else nullcontext():
                logits_BV, changes = self._compiled[key](own_idx, [_input(leaf) for leaf in leaves], sizes)
        except torch._dynamo.exc.TorchDynamoException as error:
            reason = " ".join(str(error).partition("\n\n")[0].split())
            raise InputError(f"this model's step cannot be compiled: {reason}") from error
        for leaf, change in zip(leaves, changes, strict=True):
            if isinstance(leaf, TimeBuffer) and change != 1:
                grown = "is replaced by another" if change is None else f"grows by {change} entries"
                shape = tuple(leaf.data.shape)
                raise InputError(
                    f"this model's step cannot be compiled: a time buffer {shape} {grown}, not by one entry"
                )
        return logits_BV, with_leaves(layers, map(_advanced, leaves, changes))

    def _compile(self, places: _Places, layers: State) -> Callable[..., Any]:
        """The step for states like `layers`, in which numbers of one kind at the same place are equal."""
        features, head = self._features, self._head
        kinds = [(type(leaf), getattr(leaf, "window", None)) for leaf in leaves_of(layers)]
        blank = with_leaves(layers, [None] * len(kinds))

        def step(idx_B1: Tensor, inputs: list[Any], sizes: list[list[Tensor]]) -> tuple[Tensor, list[Any]]:
            lengths, numbers = (
                iter([values[place].shape[0] - _OFFSET for place in group])
                for values, group in zip(sizes, places, strict=True)
            )
            before: list[Any] = []
            for (kind, window), value in zip(kinds, inputs, strict=True):
                if kind is TimeBuffer:
                    length = next(lengths)
                    before.append(TimeBuffer(value, length, window, [length]))
                elif kind is Constant:
                    before.append(Constant(value))
                else:
                    before.append(next(numbers) if kind is int else value)
            x_B1D, after = features(idx_B1, with_leaves(blank, before))
            changes = [_change(old, new) for old, new in zip(before, leaves_of(after), strict=True)]
            return head(x_B1D[:, -1]), changes

        # Compiled code is kept with the function's code object, up to a limit: each model's gets one of its own.
        own = types.FunctionType(step.__code__.replace(), step.__globals__, "step", None, step.__closure__)
        return torch.compile(own, fullgraph=True, options=OPTIONS)


@contextmanager
def _compiling(rows: int) -> Generator[None]:
    """Settings for the call that triggers compilation."""
    from torch._inductor import config  # here, because importing it takes a second

    # Frozen weights may be laid out anew, in the blocks that products with several rows want.
    with warnings.catch_warnings(), config.patch(freezing=rows > 1):
        warnings.simplefilter("ignore")  # torch's own, about itself
        yield


def _input(leaf: Any) -> Any:
    """The leaf as the compiled function takes it; numbers go another way."""
    if isinstance(leaf, TimeBuffer):
        return leaf.data
    return leaf.tensor if isinstance(leaf, Constant) else None if type(leaf) is int else leaf


def _change(old: Any, new: Any) -> Any:
    """Traced: the new value of a leaf; for a buffer, how many entries were appended in place; for a constant None."""
    if isinstance(old, TimeBuffer):
        return new.length - old.length if isinstance(new, TimeBuffer) and new.data is old.data else None
    return None if isinstance(old, Constant) else new


def _advanced(leaf: Any, change: Any) -> Any:
    """The leaf after the step."""
    if isinstance(leaf, TimeBuffer):
        return leaf.extended(1)
    return leaf if isinstance(leaf, Constant) else change


def _sized(n: int) -> Tensor:
    """A number as the size of a tensor without entries, which torch.compile treats as a variable."""
    tensor = torch.empty(n + _OFFSET, 0)
    torch._dynamo.mark_dynamic(tensor, 0)
    return tensor
