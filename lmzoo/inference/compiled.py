"""One decoding step as one compiled function, for every architecture: embedding to logits, the state included.

An eager step of a small model is a few hundred calls, most of which take longer to launch than to run. torch.compile
fuses them into a few loops, and a state's time buffers are written in place. The compiled function takes the
state as separate tensors and numbers; the numbers grow from step to step.
"""

from __future__ import annotations

import types
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from lmzoo.compiling import compiled
from lmzoo.errors import InputError
from lmzoo.model import LanguageModel
from lmzoo.state import Constant, State, TimeBuffer, leaves_of, with_leaves

# A result of more operations than this is stored, not recomputed by each of its readers: a norm would otherwise be
# recomputed for every row of the matrix product that follows it.
OPTIONS: dict[str, Any] = {"realize_opcount_threshold": 3}
_OFFSET = 2  # torch.compile treats the sizes 0 and 1 as constants
_Places = tuple[tuple[int, ...], ...]  # for each kind of number, its index in the list of distinct values


class CompiledStep:
    """The compiled step of `model`. The first call for each batch size takes about 10 to 60 seconds."""

    def __init__(self, model: LanguageModel) -> None:
        self._features, self._head = model.features, model.head
        self._compiled: dict[tuple[int, _Places], Callable[..., Any]] = {}

    def can_take(self, idx: Tensor, layers: State) -> bool:
        """True for one token that is not the first, if it can be appended to every buffer in place and leaves room.

        A step that fills a buffer would be compiled anew: the entries of a full buffer are contiguous.
        """
        if idx.shape[1] != 1 or layers is None:
            return False
        return all(leaf.length > 0 and leaf.has_room(2) for leaf in leaves_of(layers) if isinstance(leaf, TimeBuffer))

    def __call__(self, idx: Tensor, layers: State) -> tuple[Tensor, State]:
        """Returns logits (B, V) after idx (B, 1), and the next state. Raises `InputError` if it cannot be compiled."""
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
        sizes = [[_sized(n) for n in values] for values in different]
        try:
            with _compiling(rows=len(idx)) if new else nullcontext():
                logits_BV, changes = self._compiled[key](_own_memory(idx), [_input(leaf) for leaf in leaves], sizes)
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
        """Compile the step for states like `layers`, in which numbers with the same index are equal."""
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

        # torch caches compiled code per code object, up to a limit: each model gets a code object of its own.
        own = types.FunctionType(step.__code__.replace(), step.__globals__, "step", None, step.__closure__)
        return compiled(own, fullgraph=True, options=OPTIONS)


@contextmanager
def _compiling(rows: int) -> Generator[None]:
    """Settings for the call that triggers compilation."""
    from torch._inductor import config  # imported here, because it takes a second

    # Frozen weights may be converted to the blocked layout that products with several rows need.
    with warnings.catch_warnings(), config.patch(freezing=rows > 1):
        warnings.simplefilter("ignore")  # warnings of torch about its own code
        yield


def _input(leaf: Any) -> Any:
    """Returns the tensor of a leaf for the compiled function; numbers are passed separately."""
    if isinstance(leaf, TimeBuffer):
        return leaf.data
    if isinstance(leaf, Constant):
        return leaf.tensor
    if isinstance(leaf, Tensor) and (leaf._is_view() or not leaf.is_contiguous()):
        return _own_memory(leaf)  # a prefill may keep a slice; the tensors that follow it would be compiled anew
    return None if type(leaf) is int else leaf


def _own_memory(tensor: Tensor) -> Tensor:
    """Returns a copy that has the strides of no other tensor."""
    return tensor.clone(memory_format=torch.contiguous_format)


def _change(old: Any, new: Any) -> Any:
    """Traced: returns the new value of a leaf; for a buffer, the number of appended entries; for a constant, None."""
    if isinstance(old, TimeBuffer):
        return new.length - old.length if isinstance(new, TimeBuffer) and new.data is old.data else None
    return None if isinstance(old, Constant) else new


def _advanced(leaf: Any, change: Any) -> Any:
    """Returns the leaf after the step."""
    if isinstance(leaf, TimeBuffer):
        return leaf.extended(1)
    return leaf if isinstance(leaf, Constant) else change


def _sized(n: int) -> Tensor:
    """Encode a number as the size of an empty tensor, which torch.compile treats as a variable."""
    tensor = torch.empty(n + _OFFSET, 0)
    torch._dynamo.mark_dynamic(tensor, 0)
    return tensor
