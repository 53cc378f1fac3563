"""The evaluation protocol of a comparison: how the validation text is cut, and what a prediction sees of it."""

from __future__ import annotations

from typing import Any

from lmzoo.compare.results import Results
from lmzoo.data.documents import count_targets
from lmzoo.data.store import TokenSplit


def describe(reported: TokenSplit, context_length: int, stride: int, *, half: bool) -> dict[str, Any]:
    """Return the protocol as it is stored in results.json; `half` of the validation split, or the whole."""
    return {
        "split": "half" if half else "whole",
        "documents": "joined" if reported.ends is None else "isolated",
        "context": "reset",
        "context_length": context_length,
        "stride": stride,
        "targets": count_targets(reported),
    }


def sentence(results: Results) -> str:
    """State the protocol in a line for people; nothing for results without one."""
    facts = results.protocol
    if not facts:
        return ""
    length, stride = facts["context_length"], facts["stride"]
    split = "the half of the validation split that is reported" if facts["split"] == "half" else "the validation split"
    if facts["documents"] == "isolated":
        cut = f"isolated, so a prediction sees its own only; longer ones are cut into pieces of {length:,} tokens"
    else:
        windows = "do not overlap" if stride == length else f"start {stride:,} token{'s' if stride > 1 else ''} apart"
        cut = f"joined and read in windows of {length:,} tokens that {windows}"
    seen = f"1 to {length:,} tokens"
    if stride < length:
        seen = f"at least {length - stride + 1:,} tokens (fewer in the first window)"
    part = "piece" if facts["documents"] == "isolated" else "window"
    return (
        f"Evaluation: the documents of {split} are {cut}; the context is reset at each {part}, so a prediction sees "
        f"{seen}. Each of the {facts['targets']:,} targets counts once. Bits per byte are over the UTF-8 bytes of the "
        "whole text."
    )
