"""Tests that the compiled step equals the eager step for every family, and refuses states that it cannot handle."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import lmzoo
from lmzoo.conformance import subject
from lmzoo.errors import InputError
from lmzoo.inference import decoding_copy
from lmzoo.state import Constant, State, TimeBuffer, leaves_of

SIZES = {"vocab_size": 33, "context_length": 24}
SMALL = {"n_layers": 1, "d_model": 32, "n_heads": 2}


def small(family: str, **settings: Any) -> lmzoo.LanguageModel:
    known = {field: value for field, value in SMALL.items() if field in fields(family)}
    generator = torch.Generator().manual_seed(0)
    return lmzoo.create_model(family, **SIZES, **{**known, **settings}, generator=generator).eval()


def fields(family: str) -> set[str]:
    return set(lmzoo.registry.model_class(family).config_class.__dataclass_fields__)


def step_by_step(model: lmzoo.LanguageModel, idx_BT: Tensor, prefill: int, room: int) -> tuple[Tensor, list[State]]:
    """Returns the logits after every token from `prefill` on, and the states before them."""
    logits_BV, state = model.decode(idx_BT[:, :prefill], model.init_state(len(idx_BT), room))
    found, states = [logits_BV], []
    for t in range(prefill, idx_BT.shape[1]):
        states.append(state)
        logits_BV, state = model.decode(idx_BT[:, t : t + 1], state)
        found.append(logits_BV)
    return torch.stack(found, dim=1), states


def assert_near(found: Tensor, wanted: Tensor) -> None:
    """Equal up to the rounding of bfloat16: a fused step rounds less often than an eager one."""
    assert (found - wanted).abs().max() < 0.03 * wanted.abs().max() + 1e-6


FAMILIES = [name for name in lmzoo.list_models() if "." not in name]
BY_INDUCTOR = {"gemma3": 1, "hyena": 3, "mlp": 1}  # rows; have every kind of leaf: see the test below
# Parts of the states of the first two do not grow by one entry; a step of the third may end a mini-batch.
# A model without parameters is not compiled.
GRAPHS = {"log_linear": 0, "path_attention": 0, "ttt": 2, "ngram": 0}  # all others: 1

REFUSED = {"nsa"}  # a block whose state grows by one entry for several tokens


def require_equal_steps(family: str, rows: int, **settings: Any) -> None:
    """Decode more tokens than the capacity of the buffers and the sliding window; then decode from an earlier state."""
    model = small(family, **settings)
    idx_BT = torch.randint(33, (rows, 28), generator=torch.Generator().manual_seed(1))
    eager, compiled = (decoding_copy(model, "bfloat16", rows=rows, compiled=c) for c in (False, True))
    wanted_BSV, _ = step_by_step(eager, idx_BT, 3, 16)
    found_BSV, states = step_by_step(compiled, idx_BT, 3, 16)
    assert_near(found_BSV, wanted_BSV)
    step = compiled.compiled_step
    assert (step is None) == (model.num_params() == 0)
    if step is None:
        return
    has_buffers = any(isinstance(leaf, TimeBuffer) for leaf in leaves_of(states[0]["layers"]))
    assert step.can_take(idx_BT[:, :1], states[0]["layers"]) != has_buffers, "another state has written behind it"
    again_BV, _ = compiled.decode(idx_BT[:, 5:6], states[2])  # an earlier state is still valid
    assert_near(again_BV, wanted_BSV[:, 3])


def by_eager_backend(monkeypatch: pytest.MonkeyPatch) -> list[torch.fx.GraphModule]:
    """Compile without the C++ compiler; returns the list in which the captured graphs will be."""
    whole, graphs = torch.compile, list[torch.fx.GraphModule]()

    def keep(graph: torch.fx.GraphModule, _inputs: list[Tensor]) -> Any:
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", lambda step, **options: whole(step, backend=keep, fullgraph=True))
    return graphs


@pytest.mark.parametrize("family", FAMILIES)
def test_compiled_step_equals_the_eager_step(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Uses the eager backend, without the C++ compiler: our code only passes the state, which this tests.

    One graph serves all steps, whatever the lengths, capacities and strides are: to compile again takes seconds.
    """
    graphs = by_eager_backend(monkeypatch)
    require_equal_steps(family, rows=2, **one_of_each_kind(family))
    assert len(graphs) == GRAPHS.get(family, 1)


def one_of_each_kind(family: str) -> dict[str, Any]:
    """Return the settings of a model with all classes of layers of the family, and one block of each kind if possible.

    Each further block of a kind would take as long to capture as the first.
    """
    config = subject(family).config
    kinds = [*dict.fromkeys(word.partition("*")[0] for word in getattr(config, "pattern", "").split())]
    kinds = [kind for kind in kinds if kind not in REFUSED]
    depths = [{"n_layers": depth} for depth in range(2, 2 * getattr(config, "n_layers", 0) + 1)]
    candidates = [{"pattern": " ".join(kinds), "n_layers": len(kinds)}] if len(kinds) > 1 else [{}, *depths]
    every = classes_in(small(family, **(depths[-1] if depths else {})))
    return next(settings for settings in candidates if classes_in(small(family, **settings)) >= every)


def classes_in(model: lmzoo.LanguageModel) -> set[type]:
    return {type(module) for module in model.modules()}


@pytest.mark.parametrize(("family", "rows"), BY_INDUCTOR.items())
def test_compiled_step_equals_the_eager_step_by_inductor(family: str, rows: int) -> None:
    require_equal_steps(family, rows)


def kinds_of_leaves(family: str) -> set[tuple[type, bool]]:
    """The types of the leaves of a state: for a tensor, if it holds floats; for a buffer, if it has a window."""
    leaves = leaves_of(small(family).init_state(1, 8)["layers"])
    return {
        (
            type(leaf),
            leaf.is_floating_point() if isinstance(leaf, Tensor) else getattr(leaf, "window", None) is not None,
        )
        for leaf in leaves
    }


def test_inductor_families_have_every_kind_of_leaf() -> None:
    some, every = (set().union(*map(kinds_of_leaves, families)) for families in (BY_INDUCTOR, FAMILIES))
    assert some == every


def test_compiled_step_with_int8_and_a_sliding_window() -> None:
    """Positions and buffer lengths become different once a buffer drops entries before its window."""
    model = small("llama", window=4)
    idx_BT = torch.randint(33, (1, 28), generator=torch.Generator().manual_seed(1))
    eager, compiled = (decoding_copy(model, "int8", compiled=c) for c in (False, True))
    wanted_BSV, _ = step_by_step(eager, idx_BT, 3, 40)
    found_BSV, _ = step_by_step(compiled, idx_BT, 3, 40)
    assert_near(found_BSV, wanted_BSV)


def test_compiled_step_says_why_a_step_cannot_be_compiled() -> None:
    class Branches(type(small("bigram"))):
        def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
            x_BTD, state = super().features(idx_BT, state)
            return (x_BTD if float(x_BTD.sum()) > 1e9 else x_BTD + 0.0), state

    model = decoding_copy(Branches(small("bigram").config), "bfloat16", compiled=True)
    with pytest.raises(InputError, match="this model's step cannot be compiled: "):
        model.generate(torch.zeros(1, 1, dtype=torch.long), 3)


class Mean(lmzoo.LanguageModel):
    """The mean of the features of all tokens so far, times the taps of a filter; a step keeps one entry of a buffer."""

    def __init__(self) -> None:
        super().__init__(lmzoo.ModelConfig(vocab_size=5, context_length=16))
        self.tokens = nn.Embedding(5, 32)
        self.head = nn.Linear(32, 5)

    @property
    def traits(self) -> lmzoo.Traits:
        return lmzoo.Traits(extrapolates=True)

    def init_layers(self, batch_size: int, max_len: int, like: Tensor) -> State:
        filter_D = Constant(self.head.weight.sum(dim=0))
        return {"seen": TimeBuffer.empty(batch_size, max_len, 32, dtype=like.dtype), "filter": filter_D}

    def features(self, idx_BT: Tensor, state: State = None) -> tuple[Tensor, State]:
        state = state or self.init_layers(len(idx_BT), idx_BT.shape[1], self.tokens.weight)
        seen = self.keep(state["seen"], self.tokens(idx_BT))
        x_BSD = seen.entries().cumsum(dim=1)[:, -idx_BT.shape[1] :] * state["filter"].tensor
        return x_BSD, self.next_state(seen, state["filter"])

    def keep(self, seen: TimeBuffer, x_BTD: Tensor) -> TimeBuffer:
        return seen.append(x_BTD)

    def next_state(self, seen: TimeBuffer, filter_D: Constant) -> State:
        return {"seen": seen, "filter": filter_D}


class Doubled(Mean):
    def keep(self, seen: TimeBuffer, x_BTD: Tensor) -> TimeBuffer:
        return seen.append(x_BTD.repeat_interleave(2, dim=1))


class EveryFourth(Mean):
    """Appends one entry per four tokens, as a model of patches does."""

    def keep(self, seen: TimeBuffer, x_BTD: Tensor) -> TimeBuffer:
        return seen if x_BTD.shape[1] == 1 and seen.length % 4 else seen.append(x_BTD)


class Rewritten(Mean):
    """A buffer of the right length in other memory."""

    def keep(self, seen: TimeBuffer, x_BTD: Tensor) -> TimeBuffer:
        data, T = seen.data.clone(), x_BTD.shape[1]
        data[:, seen.length : seen.length + T] = x_BTD
        return TimeBuffer(data, seen.length + T, None, [seen.length + T])


class Shortened(Mean):
    def next_state(self, seen: TimeBuffer, filter_D: Constant) -> State:
        return {"seen": seen}


class Reordered(Mean):
    def next_state(self, seen: TimeBuffer, filter_D: Constant) -> State:
        return {"filter": filter_D, "seen": seen}


@pytest.mark.parametrize(
    ("family", "reason"),
    [
        (Doubled, r"a time buffer \(1, 40, 32\) grows by 2 entries, not by one"),
        (EveryFourth, r"a time buffer \(1, 40, 32\) grows by 0 entries, not by one"),
        (Rewritten, r"a time buffer \(1, 40, 32\) is replaced by another"),
        (Shortened, "Observed exception"),
    ],
)
def test_compiled_step_refuses_states_that_change_in_another_way(
    family: type[Mean], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_eager_backend(monkeypatch)
    model = decoding_copy(family().eval(), "bfloat16", compiled=True)
    idx_BT = torch.arange(5)[None]
    _, state = model.decode(idx_BT, model.init_state(1, 40))
    before = model.init_layers(1, 40, model.tokens.weight) | state["layers"]
    with pytest.raises(InputError, match=f"this model's step cannot be compiled: {reason}"):
        model.decode(idx_BT[:, :1], {**state, "layers": before})


def test_compiled_step_reads_a_constant_and_hands_it_on() -> None:
    model = Reordered().eval()
    eager, compiled = (decoding_copy(model, "bfloat16", compiled=c) for c in (False, True))
    idx_BT = torch.randint(5, (1, 12), generator=torch.Generator().manual_seed(1))
    wanted_BSV, _ = step_by_step(eager, idx_BT, 3, 16)
    found_BSV, states = step_by_step(compiled, idx_BT, 3, 16)
    assert_near(found_BSV, wanted_BSV)
    assert all(state["layers"]["filter"] is states[0]["layers"]["filter"] for state in states)
    before = lmzoo.state.clone(states[2]["layers"])  # with its own memory
    doubled = {"seen": before["seen"], "filter": Constant(2 * before["filter"].tensor)}  # keys in any order
    step = compiled.compiled_step
    assert step is not None
    assert step.can_take(idx_BT[:, 5:6], doubled)
    logits_BV, _ = compiled.decode(idx_BT[:, 5:6], {**states[2], "layers": doubled})
    bias_V = compiled.head.bias
    assert_near(logits_BV - bias_V, 2 * (wanted_BSV[:, 3] - bias_V))
