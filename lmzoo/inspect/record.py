"""Records values inside of a model: attention weights, gates, router choices, state norms, under one vocabulary.

What a layer has to show it offers itself (`lmzoo.layers.offers`); the recorder finds the layers, calls them and names
what they offer. Models are not changed: hooks are removed afterwards, and no forward is replaced.
Legend: B batch, T time, D model width.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lmzoo.generation.loop import evaluating
from lmzoo.inspect.recording import NAMES, Recording, block_of, kind_of
from lmzoo.layers.offers import VOCABULARY, on_other_positions
from lmzoo.layers.stack import blocks_of, init_state, state_growth
from lmzoo.model import LanguageModel, require_model
from lmzoo.ops.precision import wide
from lmzoo.state import State, leaves_of
from lmzoo.train.activations import features_of

Reduce = Callable[[str, Tensor], Tensor]


@torch.no_grad()
def record(model: LanguageModel, idx: Tensor, *, reduce: Reduce | None = None) -> Recording:
    """Returns what the layers of a model offer for the tokens idx (B, T) int64, by name.

    A name is the block and an entry of `NAMES`: `blocks.0.gates.decay`. If a block has several values of one name, in
    several layers or because it runs several times, the later ones end in `.2`, `.3`, ... in the order of their
    computation. Layers that do not run on all tokens, such as on learned chunks, are left out. Dropout is off.

    `reduce(name, value)` replaces each value as soon as it is offered, for example by a mean, so that large values of
    many layers are not in memory together.

    Costs two forward passes, and T decoding steps if blocks have a state of fixed size. Raises `InputError` as
    `model(idx)` does.
    """
    require_model("model", model)
    model._check_ids("idx", idx)
    recorder = _Recorder(reduce or (lambda _name, value: value))
    with evaluating(model):
        with recorder.hooks(_hooks_of_layers(model, idx.shape[1], recorder)):
            model(idx)
        remembering = _remembering(model)
        if len(idx) and remembering:
            norms = _state_norms(model, idx, remembering)
            recorder.values |= {name: recorder.reduce(name, value) for name, value in norms.items()}
    order = {kind: place for place, kind in enumerate(NAMES)}
    found = sorted(recorder.values.items(), key=lambda item: (block_of(item[0]) or 0, order[kind_of(item[0])]))
    return Recording(dict(found))


class _Recorder:
    """Collects values under the block that runs."""

    def __init__(self, reduce: Reduce) -> None:
        self.reduce = reduce
        self.block: int | None = None  # the one that runs
        self.restart()

    def restart(self) -> None:
        """Forgets the values."""
        self.values: dict[str, Tensor] = {}
        self._counts: dict[str, int] = defaultdict(int)  # values so far, by name without a number

    def add(self, kind: str, value: Tensor) -> None:
        """Keeps a value under its name, which is numbered from the second one on."""
        name = kind if self.block is None else f"blocks.{self.block}.{kind}"
        self._counts[name] += 1
        name = name if self._counts[name] == 1 else f"{name}.{self._counts[name]}"
        self.values[name] = self.reduce(name, value)

    @contextmanager
    def hooks(self, handles: Iterable[Any]) -> Iterator[None]:
        """Removes the hooks at the end of the block."""
        handles = list(handles)
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def _hooks_of_layers(model: LanguageModel, T: int, recorder: _Recorder) -> Iterator[Any]:
    """Adds hooks to the blocks, which say where a value belongs, and to the layers that offer values."""

    def enter(number: int) -> Callable[..., None]:
        def hook(_block: nn.Module, _inputs: Any) -> None:
            recorder.block = number

        return hook

    def leave(_block: nn.Module, _inputs: Any, out: Any) -> None:
        recorder.add("features.rms", wide(features_of(out)).flatten(2).square().mean(dim=-1).sqrt())
        recorder.block = None

    def ask(layer: Any, inputs: tuple[Any, ...], _out: Any) -> None:
        """Asks a layer that was called with (x, state, ctx), or with x alone."""
        for kind, value in layer.offers(*inputs[:1], *inputs[2:]).items():
            assert kind in VOCABULARY, f"{type(layer).__name__} offers {kind!r}, which is not in the vocabulary"
            recorder.add(kind, value)

    for number, block in enumerate(blocks_of(model)):
        yield block.register_forward_pre_hook(enter(number))
        yield block.register_forward_hook(leave)
    apart = set(on_other_positions(model, T))
    for layer in model.modules():
        if hasattr(layer, "offers") and layer not in apart:
            yield layer.register_forward_hook(ask, prepend=True)  # before `leave`, for a block that is one layer


def _remembering(model: LanguageModel) -> dict[int, nn.Module]:
    """Returns the blocks, by number, that decode with a state of fixed size."""
    like = torch.empty(0, device=model.device, dtype=model.dtype)
    if model.init_layers(1, 1, like) is None:  # it decodes without a state
        return {}
    return {
        number: block
        for number, block in enumerate(blocks_of(model))
        if state_growth(block) == "constant" and _memory(init_state(block, 1, 1, like))
    }


def _state_norms(model: LanguageModel, idx: Tensor, blocks: Mapping[int, nn.Module]) -> dict[str, Tensor]:
    """Returns the norms (B, T) of the states of these blocks after each token, by decoding."""
    (B, T), norms = idx.shape, defaultdict[str, list[Tensor]](list)
    step = _Recorder(lambda _name, value: value)  # of one step

    def after(number: int) -> Callable[..., None]:
        def hook(_block: nn.Module, _inputs: Any, out: tuple[Tensor, State]) -> None:
            step.block = number
            parts = [torch.linalg.vector_norm(part.flatten(1), dim=1) for part in _memory(out[1])]
            step.add("state.norm", torch.stack([wide(part) for part in parts]).norm(dim=0))

        return hook

    with step.hooks(block.register_forward_hook(after(number)) for number, block in blocks.items()):
        state = model.init_state(B, T)
        for t in range(T):
            step.restart()
            _, state = model.decode(idx[:, t : t + 1], state)
            for name, value in step.values.items():
                norms[name].append(value)
    return {name: torch.stack(found, dim=1) for name, found in norms.items()}


def _memory(state: State) -> list[Tensor]:
    """Returns the tensors of numbers in a state, (B, ...) each, without the entries of caches."""
    leaves = (leaf for leaf in leaves_of(state) if isinstance(leaf, Tensor))
    return [leaf for leaf in leaves if leaf.is_floating_point() or leaf.is_complex()]
