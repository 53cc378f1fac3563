"""Checks that the state is a value: it can be cloned, selected by row, saved, and continued several times."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch

from lmzoo import state as states
from lmzoo.conformance.decoding import check_all_positions, check_split, decode_steps
from lmzoo.conformance.lengths import expected_logits
from lmzoo.conformance.measure import require_equal, require_rows
from lmzoo.conformance.report import Fault
from lmzoo.conformance.sums import require_wide_sums
from lmzoo.conformance.tiny import Subject
from lmzoo.errors import CheckpointError
from lmzoo.inference import decoding_copy
from lmzoo.model import LanguageModel

EXACT = 1e-6  # for the same operations on the same numbers, in memory that may be aligned differently
LOOK = "forward() of the layers: it must return a new state and leave the one it was given as it is"


def state_is_a_value(subject: Subject) -> str:
    """Checks that a state is unchanged by decoding from it, from its clone, or with another model.

    It must not refer to the tokens that were decoded or to the logits either: the caller may reuse their memory.
    """
    model, n = subject.model(), 4
    prompt, left, right = subject.tokens(2, 5), subject.tokens(2, n, seed=1), subject.tokens(2, n, seed=2)
    _, state = model.decode(prompt, model.init_state(2, 12))
    cloned = states.clone(state)
    cloned_values = [tensor.clone() for tensor in states.tensors(cloned)]
    expected_BTV = expected_logits(subject, model, torch.cat([prompt, left], dim=1))[:, 5:]

    first_BTV, _ = decode_steps(model, left, state)
    require_equal(first_BTV, expected_BTV, "a continuation", LOOK)
    decode_steps(model, right, state)
    again_BTV, _ = decode_steps(model, left, state)
    require_equal(
        again_BTV, first_BTV, "the same continuation of one state, after another one was decoded", LOOK, EXACT
    )
    for before, after in zip(cloned_values, states.tensors(cloned), strict=True):
        if not torch.equal(before, after):
            raise Fault(f"decoding a state changes its clone; look at {LOOK}")
    decode_steps(model, right, cloned)
    again_BTV, _ = decode_steps(model, left, state)
    require_equal(again_BTV, first_BTV, "a continuation, after the state's clone was decoded", LOOK, EXACT)

    buffer, kept = torch.empty_like(prompt), None  # the caller may reuse the memory of the tokens
    what = "a continuation, after the memory of its tokens was reused and of its logits overwritten,"
    where = "a state that refers to the tokens that were given, or to the logits: keep a copy (clone())"
    for t, step in enumerate((prompt, *left.split(1, dim=1))):
        given = buffer[:, : step.shape[1]]
        given.copy_(step)
        logits_BV, kept = model.decode(given, model.init_state(2, 12) if kept is None else kept)
        if t:
            require_equal(logits_BV, first_BTV[:, t - 1], what, where)
        given.copy_((step + 1) % subject.config.vocab_size)
        memory = {tensor.untyped_storage().data_ptr() for tensor in states.tensors(kept) if tensor.numel()}
        if logits_BV.untyped_storage().data_ptr() in memory:
            logits_BV.add_(1)

    a, b = state, state  # two continuations of one state, one token of each in turn
    for t in range(n):
        logits_BV, a = model.decode(left[:, t : t + 1], a)
        _, b = model.decode(right[:, t : t + 1], b)
        require_equal(logits_BV, first_BTV[:, t], f"token {t} of two interleaved continuations", LOOK, EXACT)

    other = subject.model(seed=7)  # another instance of the class decodes in between
    _, state = model.decode(prompt, model.init_state(2, 12))
    other.decode(right, other.init_state(2, 12))
    logits_BV, _ = model.decode(left[:, :1], state)
    require_equal(
        logits_BV,
        first_BTV[:, 0],
        "a continuation, after another model decoded",
        "state kept on the class or module",
        EXACT,
    )
    fresh_BV, _ = model.decode(prompt, model.init_state(2, 12))
    expected_BV = expected_logits(subject, model, prompt)[:, -1]
    require_equal(fresh_BV, expected_BV, "a second decoding from init_state", "init_state(): it must make new tensors")
    return "unchanged by clones, interleaved continuations and other models"


def state_rows(subject: Subject) -> str:
    """Checks that the rows of a state can be selected, repeated and reordered: every tensor has the batch first."""
    model = subject.model()
    prompt, more = subject.tokens(3, 5), subject.tokens(3, 3, seed=1)
    require_rows("a fresh state", model.init_state(5, 10), 5)  # not only of 3 rows: another axis may have 3 entries
    fresh = model.init_state(3, 10)
    require_rows("a fresh state", fresh, 3)
    _, state = model.decode(prompt, fresh)
    require_rows("a state", state, 3)
    expected_BTV, _ = decode_steps(model, prompt, fresh)
    picked_BTV, _ = decode_steps(model, prompt[[2, 0]], states.select(fresh, [2, 0]))
    require_equal(picked_BTV, expected_BTV[[2, 0]], "rows [2, 0] of a fresh state", "init_state()")
    expected_BTV, _ = decode_steps(model, more, state)
    for rows in ([2, 0, 1], [1], [0, 0, 2, 2]):
        picked_BTV, _ = decode_steps(model, more[rows], states.select(state, rows))
        require_equal(
            picked_BTV, expected_BTV[rows], f"rows {rows} of a state", "state that is not in the state's tensors"
        )
    return "rows reordered, repeated and left out continue as in the full batch"


def _require_text_keys(state: Any) -> None:
    """Raises `Fault` for a dict in the state whose keys are not texts: a file can hold no other keys."""
    if isinstance(state, dict):
        for key in state:
            if not isinstance(key, str):
                raise Fault(
                    f"a dict in the state has the key {key!r}: keys must be texts, because a file can hold no others"
                )
    children = state.values() if isinstance(state, dict) else state if isinstance(state, (list, tuple)) else ()
    for child in children:
        _require_text_keys(child)


def max_len(subject: Subject) -> str:
    """Checks that `max_len` of `init_state` is a hint: decoding goes on after more tokens, and may end after fewer."""
    model = subject.model().double()
    T = subject.context
    L = max(2 * T + 3, 47)  # 47 tokens: the longest split of a fixed length below
    idx = subject.tokens(2, L)
    expected_BTV = expected_logits(subject, model, idx)
    tried: dict[int, list[int]] = {1: [5, *[7] * 6], 3: [1] * L, T // 2: [2, L - 2], 4 * T: [7, *[9] * 4]}
    for length, split in tried.items():
        n = sum(split)
        check = check_split if set(split) == {1} else check_all_positions
        check(model, idx[:, :n], expected_BTV[:, :n], split, "buffers that do not grow", max_len=length)
    return f"up to {L} tokens after init_state with max_len = {', '.join(map(str, tried))}"


def state_dtype(subject: Subject) -> str:
    """Checks that the state has at least the precision of the weights, and that decoding keeps its dtypes.

    The dtypes must stay the same in a copy with bfloat16 weights, too.

    Also checks that no sum over many tokens is kept in 16 bits, where each token would round it.
    """
    model = subject.model()
    types = _require_same_dtypes(subject, model)
    for dtype in types:
        if dtype.is_floating_point and dtype.itemsize < model.dtype.itemsize:
            raise Fault(
                f"the state holds {dtype}, and the weights {model.dtype}: rounding errors would add up in the state; "
                "look at init_state()"
            )
    try:
        _require_same_dtypes(subject, decoding_copy(model, "bfloat16"))
    except Fault:
        raise
    except Exception:  # `decoding_copies` reports what has no code for 16 bits
        pass
    wide = subject.model().double()
    # A model without parameters has torch's default dtype, which `double()` does not change.
    for tensor in states.tensors(wide.init_state(1, 8)) if wide.dtype == torch.float64 else ():
        if tensor.dtype.is_floating_point and tensor.dtype.itemsize < 8:
            raise Fault(
                f"the state of a float64 model holds {tensor.dtype}; look at init_state(): like.new_zeros(...), or "
                "dtype=wide_dtype(like.dtype), gives the dtype of the model, and its device"
            )
    require_wide_sums(subject)
    return f"{len(types)} tensors, dtypes constant: {', '.join(sorted({str(t) for t in types})) or 'none'}"


def _require_same_dtypes(subject: Subject, model: LanguageModel) -> list[torch.dtype]:
    """Raises `Fault` if the dtypes of a state change while decoding; returns them.

    A saved state is loaded into one that `init_state` has made, and `state_bytes` measures that one.
    """
    before = model.init_state(1, 8)
    _, middle = model.decode(subject.tokens(1, 3), before)
    _, after = model.decode(subject.tokens(1, 1), middle)
    types = [[tensor.dtype for tensor in states.tensors(state)] for state in (before, middle, after)]
    if not types[0] == types[1] == types[2]:
        named = ["/".join(sorted({str(t) for t in each})) or "nothing" for each in types]
        raise Fault(
            f"with weights in {model.dtype}, a state of {named[0]} becomes {named[1]} after a prefill and {named[2]} "
            f"after a step; look at {LOOK}"
        )
    return types[0]


def state_saved(subject: Subject) -> str:
    """Checks that a state continues in the same way after saving and loading: all of it is in its tensors."""
    model = subject.model()
    prompt, more = subject.tokens(2, 5), subject.tokens(2, 3, seed=1)
    _, state = model.decode(prompt, model.init_state(2, 10))
    _require_text_keys(state)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.safetensors"
        states.save(path, state)
        try:
            restored, size = states.load(path, like=model.init_state(1, 10)), path.stat().st_size
        except CheckpointError as error:
            raise Fault(
                f"a saved state cannot be loaded: {str(error).split(': ', 1)[1]} of init_state(); a tensor keeps its "
                "shape, so use a TimeBuffer for what grows with the tokens"
            ) from error
    expected_BTV, _ = decode_steps(model, more, state)
    actual_BTV, _ = decode_steps(model, more, restored)
    require_equal(
        actual_BTV, expected_BTV, "a continuation of a saved state", "state that is not in its tensors", EXACT
    )
    return f"{len(states.tensors(state))} tensors, a file of {size} bytes, saved and loaded"
