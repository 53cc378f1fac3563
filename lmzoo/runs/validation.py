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

from lmzoo.data.store import TokenSplit
from lmzoo.errors import CheckpointError
from lmzoo.storage import atomic

VALIDATION_FILE = "validation.safetensors"
MAX_BYTES = 16 << 20
_MAX_HEADER = 1 << 16
_MAX_TEXT = 1 << 40  # in bytes: no text of so few tokens is longer
_DTYPES = ("uint8", "uint16", "uint32")


def write_validation(run: Path, split: TokenSplit) -> None:
    """Write the token ids and the length of their text, unless they are too large. Raises `CheckpointError`."""
    if split.tokens.nbytes > MAX_BYTES:
        atomic.discard(run / VALIDATION_FILE)  # left by a run that was killed before it wrote its config.toml
        return
    ids = np.array(split.tokens)
    facts = {"n_bytes": str(split.n_bytes), "n_chars": str(split.n_chars), "sha256": _sha256(ids)}
    atomic.write_file(run / VALIDATION_FILE, [safetensors.numpy.save({"tokens": ids}, facts)])


def read_validation(run: Path, vocab_size: int) -> TokenSplit | None:
    """Read the split that a run keeps; None if it keeps none. Raises `CheckpointError` for a damaged file."""
    path = run / VALIDATION_FILE
    if not path.is_symlink() and not path.exists():
        return None
    if atomic.regular_size(path) > MAX_BYTES + _MAX_HEADER:
        raise CheckpointError(f"{path}: is larger than {MAX_BYTES + _MAX_HEADER} bytes")
    try:
        with safe_open(path, framework="numpy") as file:
            tokens, facts = file.get_tensor("tokens"), file.metadata()
            n_bytes, n_chars, sha256 = int(facts["n_bytes"]), int(facts["n_chars"]), facts["sha256"]
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: is not a file of validation tokens (damaged or changed)") from error
    is_sequence = tokens.dtype.name in _DTYPES and tokens.ndim == 1 and tokens.size >= 2
    if not is_sequence or sha256 != _sha256(tokens) or not 0 < n_chars <= n_bytes <= _MAX_TEXT:
        raise CheckpointError(f"{path}: its content differs from its header (damaged or changed)")
    if int(tokens.max()) >= vocab_size:
        raise CheckpointError(f"{path}: holds the token {tokens.max()}: must be below vocab_size={vocab_size}")
    return TokenSplit(str(run), "val", tokens, tokens.size, n_bytes, n_chars)


def _sha256(ids: np.ndarray) -> str:
    return hashlib.sha256(ids.tobytes()).hexdigest()
