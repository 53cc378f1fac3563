"""The validation tokens that a run keeps, so that it can be evaluated where its text differs or is missing.

The built-in corpora differ between versions of Python, files are edited, and streams go away; the loss of a run means
something only on the split that it was measured on. A split larger than `MAX_BYTES` is not kept.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError, safe_open

from lmzoo import files
from lmzoo.data.store import TokenSplit
from lmzoo.errors import CheckpointError
from lmzoo.storage import atomic, reading

VALIDATION_FILE = "validation.safetensors"
MAX_BYTES = 16 << 20
_MAX_HEADER = 1 << 16
_MAX_TEXT = 1 << 40  # in bytes: no text of so few tokens is longer
_DTYPES = ("uint8", "uint16", "uint32")


def write_validation(run: Path, split: TokenSplit) -> None:
    """Write the token ids and the length of their text, unless they are too large. Raises `CheckpointError`."""
    if split.tokens.nbytes + (0 if split.ends is None else split.ends.nbytes) > MAX_BYTES:
        atomic.discard(run / VALIDATION_FILE)  # left by a run that was killed before it wrote its config.toml
        return
    ids = np.array(split.tokens)
    arrays = {"tokens": ids} if split.ends is None else {"tokens": ids, "ends": np.array(split.ends)}
    facts = {"n_bytes": str(split.n_bytes), "n_chars": str(split.n_chars), "sha256": _sha256(*arrays.values())}
    atomic.write_file(run / VALIDATION_FILE, [safetensors.numpy.save(arrays, facts)])


def read_validation(run: Path, vocab_size: int) -> TokenSplit | None:
    """Read the split that a run keeps; None if it keeps none. Raises `CheckpointError` for a damaged file."""
    path = run / VALIDATION_FILE
    if not path.is_symlink() and not path.exists():
        return None
    if reading.regular_size(path) > MAX_BYTES + _MAX_HEADER:
        raise CheckpointError(f"{path}: is larger than {MAX_BYTES + _MAX_HEADER} bytes")
    try:
        files.open_regular(path).close()  # the package does not say why it cannot open a file
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {files.reason(error)}") from error
    try:
        with safe_open(path, framework="numpy") as file:
            tokens, facts = file.get_tensor("tokens"), file.metadata()
            ends = file.get_tensor("ends") if "ends" in file.keys() else None  # noqa: SIM118 (not a dict)
            n_bytes, n_chars, sha256 = int(facts["n_bytes"]), int(facts["n_chars"]), facts["sha256"]
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: is not a file of validation tokens (damaged or changed)") from error
    is_sequence = tokens.dtype.name in _DTYPES and tokens.ndim == 1 and tokens.size >= 2
    hashed = _sha256(*([tokens] if ends is None else [tokens, ends]))
    whole = is_sequence and sha256 == hashed and (ends is None or _are_ends(ends, tokens.size))
    if not whole or not 0 < n_chars <= n_bytes <= _MAX_TEXT:
        raise CheckpointError(f"{path}: its content differs from its header (damaged or changed)")
    if int(tokens.max()) >= vocab_size:
        raise CheckpointError(f"{path}: holds the token {tokens.max()}: must be below vocab_size={vocab_size}")
    return TokenSplit(str(run), "val", tokens, tokens.size, n_bytes, n_chars, ends)


def _are_ends(ends: np.ndarray, n_tokens: int) -> bool:
    """True for the ends of documents of `n_tokens` tokens in all, of which one has two tokens at least."""
    if ends.dtype.name != "int64" or ends.ndim != 1 or not ends.size:
        return False
    sizes = np.diff(ends, prepend=0)
    return bool(ends[-1] == n_tokens and sizes.min() >= 0 and sizes.max() >= 2)


def _sha256(*arrays: np.ndarray) -> str:
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()
