"""The evaluation protocol of a comparison: how the validation text is cut, and what a prediction sees of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lmzoo import humanize
from lmzoo.compare.findings import listed
from lmzoo.compare.results import Results
from lmzoo.data.documents import count_targets
from lmzoo.data.store import TokenSplit
from lmzoo.hardware import default_device
from lmzoo.runs.spec import RunSpec
from lmzoo.train.carried import require_carried, rows_of


def carried_states(
    specs: Mapping[str, RunSpec], splits: Sequence[TokenSplit], vocab_size: int
) -> dict[str, dict[str, Any]]:
    """Return for each model the `bytes` of its state after the longest row, and their `growth` (`Traits.state_growth`).

    The row is of the last of `splits`, which is reported. Raises an `LmzooError` for a model that cannot carry its
    context through all of them.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, spec in specs.items():
        model = spec.make_model(vocab_size, device="meta")
        for split in splits:
            require_carried(name, model, split, default_device())
        longest = int(rows_of(splits[-1], model.config.context_length).targets_N.max())
        found[name] = {"bytes": model.state_bytes(longest), "growth": model.traits.state_growth}
    return found


def describe(
    reported: TokenSplit,
    context_length: int,
    stride: int,
    *,
    half: bool,
    states: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Return the protocol as results.json holds it; `half`: the `reported` split is a half of the validation split.

    With `states`, which `carried_states` returned, the context is carried.
    """
    carried: dict[str, Any] = {}
    if states is not None:
        rows = rows_of(reported, context_length)
        carried = {"rows": len(rows), "longest_row": int(rows.targets_N.max()), "states": dict(states)}
    return {
        "split": "half" if half else "whole",
        "documents": "joined" if reported.ends is None else "isolated",
        "context": "reset" if states is None else "carried",
        "context_length": context_length,
        "stride": stride,
        "targets": count_targets(reported),
        **carried,
    }


def is_carried(results: Results) -> bool:
    """Return True if the context was carried from window to window."""
    return results.protocol.get("context") == "carried"


def differs_in_training(results: Results) -> bool:
    """Return True if evaluations during training read the text in another way than the final one."""
    return is_carried(results) or results.protocol.get("stride") != results.protocol.get("context_length")


def sentence(results: Results) -> str:
    """State the protocol in a line for people; nothing for results without one."""
    facts = results.protocol
    if not facts:
        return ""
    length, stride = facts["context_length"], facts["stride"]
    split = "the half of the validation split that is reported" if facts["split"] == "half" else "the validation split"
    if is_carried(results):
        return f"Evaluation: {_carried(facts, split)} {_targets(facts)}"
    if facts["documents"] == "isolated":
        cut = f"isolated (a prediction sees only its own document) and cut into pieces of at most {length:,} tokens"
    else:
        windows = "do not overlap" if stride == length else f"start {humanize.number(stride, 'token')} apart"
        cut = f"joined and read in windows of {length:,} tokens that {windows}"
    seen = f"1 to {length:,} tokens"
    if stride < length:
        seen = f"at least {length - stride + 1:,} tokens (fewer in the first window)"
    part = "piece" if facts["documents"] == "isolated" else "window"
    return (
        f"Evaluation: the documents of {split} are {cut}; the context is reset at each {part}, so a prediction sees "
        f"{seen}. {_targets(facts)}"
    )


def _carried(facts: Mapping[str, Any], split: str) -> str:
    length, rows, longest = facts["context_length"], facts["rows"], facts["longest_row"]
    if facts["documents"] == "isolated":
        return (
            f"the documents of {split} are isolated and read in windows of {length:,} tokens; the context is carried "
            f"from window to window and begins anew at each document, so a prediction sees 1 to {longest:,} tokens of "
            "its own document, as far as the model looks back."
        )
    parts = "one row" if rows == 1 else f"{rows} rows of {longest:,} tokens, side by side,"
    return (
        f"the documents of {split} are joined and read in {parts} in windows of {length:,} tokens; the context is "
        f"carried from window to window, so a prediction sees 1 to {longest:,} tokens, all before it in its row, as "
        "far as the model looks back."
    )


def _targets(facts: Mapping[str, Any]) -> str:
    counted = f"Each of the {facts['targets']:,} targets counts once."
    return f"{counted} Bits per byte are over all UTF-8 bytes of the evaluated text."


def state_note(results: Results) -> str:
    """State how the states of the ranked models grow where the context is carried; nothing where it is reset."""
    if not is_carried(results):
        return ""
    facts = results.protocol
    length, longest = f"{facts['context_length']:,}", f"{facts['longest_row']:,}"
    growing, constant = list[str](), list[str]()
    for model in results.ranked:
        state = facts["states"].get(model.name)
        if state is not None and state["growth"] in ("none", "constant"):
            constant.append(f"{model.name} ({humanize.size(state['bytes'])})")
        elif state is not None:
            before, after = humanize.size(model.state_bytes), humanize.size(state["bytes"])
            growing.append(f"{model.name} from {before} after {length} tokens to {after} after {longest}")
    found = [f"No model was trained on more than {length} tokens of context."]
    if constant:
        found.insert(0, f"States of constant size: {listed(constant)}.")
    if growing:
        found.insert(0, f"States that grow with the text, and with them the time of a window: {listed(growing)}.")
    return " ".join(found)
