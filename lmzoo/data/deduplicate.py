"""Removes near-duplicate documents, and finds the documents that share text with others, by their shingles.

The comparison is exact (no MinHash): every shingle of every document is numbered, which suits corpora that fit in
memory.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lmzoo.data.shingles import shingles

# A document is a near-duplicate if more than this share of its shingles is in longer documents.
NEAR_DUPLICATE = 0.5


def deduplicate(documents: Sequence[str]) -> dict[str, float]:
    """Returns the documents without near-duplicates, and for each the share of its shingles that another one contains.

    Longer documents are kept rather than shorter ones that they contain; equally long ones by alphabet. A document
    shorter than a shingle shares nothing.
    """
    ordered = sorted(set(documents), key=lambda text: (-len(text), text))
    hashes = [shingles(text) for text in ordered]
    if not hashes:
        return {}
    distinct, numbers = np.unique(np.concatenate(hashes), return_inverse=True)
    owned = np.split(numbers, np.cumsum([len(each) for each in hashes])[:-1])
    seen = np.zeros(len(distinct), bool)
    kept: list[int] = []
    for index, own in enumerate(owned):
        if _share(seen[own]) <= NEAR_DUPLICATE:
            kept.append(index)
            seen[own] = True
    # A shingle of one document alone has the same first and last owner.
    first, last = np.empty(len(distinct), np.int64), np.empty(len(distinct), np.int64)
    for index in kept:
        last[owned[index]] = index
    for index in reversed(kept):
        first[owned[index]] = index
    return {ordered[index]: _share(first[owned[index]] != last[owned[index]]) for index in kept}


def _share(flags: np.ndarray) -> float:
    return float(flags.mean()) if flags.size else 0.0
