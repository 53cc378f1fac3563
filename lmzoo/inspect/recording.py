"""A recording: values inside of a model by name, and the names that they can have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape

from torch import Tensor

from lmzoo.layers.offers import VOCABULARY, Offer

# What the recorder measures of each block itself, beside what its layers offer.
MEASURED: Mapping[str, Offer] = {
    "features.rms": Offer("(B, T)", "root mean square of the features after the block"),
    "state.norm": Offer("(B, T)", "L2 norm of the block's state of fixed size after token t, without caches"),
}
NAMES: Mapping[str, Offer] = {**VOCABULARY, **MEASURED}


class Recording(Mapping[str, Tensor]):
    """Tensors by name: `blocks.3.attention.weights`, and `blocks.3.attention.weights.2` for a second one in a block.

    All have the batch first and time second.
    """

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        self._values = dict(values)

    def __getitem__(self, name: str) -> Tensor:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"<recording of {len(self)} values: {', '.join(sorted(set(map(kind_of, self)))) or 'none'}>"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td><code>{escape(name)}</code></td><td>{tuple(value.shape)}</td>"
            f'<td style="text-align: left">{escape(NAMES[kind_of(name)].meaning)}</td></tr>'
            for name, value in self.items()
        )
        return f"<p>{escape(repr(self))}</p><table>{rows}</table>"


def kind_of(name: str) -> str:
    """Returns the part of a name that is in the vocabulary: `attention.weights` of `blocks.3.attention.weights.2`."""
    words = [word for word in name.split(".") if not word.isdecimal()]
    return ".".join(words[-2:])


def block_of(name: str) -> int | None:
    """Returns the number of the block in a name, None for a value outside of the blocks."""
    first, _, rest = name.partition(".")
    return int(rest.partition(".")[0]) if first == "blocks" else None
