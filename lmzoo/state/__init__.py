"""Decoding state (KV cache, recurrent state) as a value: clone, select rows, measure, save and load.

A state is a tree of dicts, lists and tuples. Its leaves are tensors with the batch dimension first, `TimeBuffer`s,
`Constant`s, plain numbers, or None. Only the layer that made a part reads it; everything else (the sampler, beams,
speculative decoding, prefix caches) works through the functions here, the same for every architecture.
"""

from lmzoo.state.leaves import Constant, TimeBuffer
from lmzoo.state.saving import FORMAT, check, load, save
from lmzoo.state.tree import (
    State,
    capacity_bytes,
    clone,
    leaves_of,
    map_leaves,
    map_tensors,
    nbytes,
    rows,
    select,
    tensors,
    with_leaves,
)

__all__ = [
    "FORMAT",
    "Constant",
    "State",
    "TimeBuffer",
    "capacity_bytes",
    "check",
    "clone",
    "leaves_of",
    "load",
    "map_leaves",
    "map_tensors",
    "nbytes",
    "rows",
    "save",
    "select",
    "tensors",
    "with_leaves",
]
