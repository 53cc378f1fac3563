"""Converts out-of-memory errors into one line that names the settings to reduce."""

from __future__ import annotations

import errno
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import torch

from lmzoo.errors import OutOfMemoryError
from lmzoo.runs.spec import ANY_VOCAB_SIZE, RunSpec
from lmzoo.storage import checkpoints

# Messages of torch's allocators and libraries, in lower case; only CUDA has its own exception type.
_WORDS = ("out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory", "bad_alloc")


@contextmanager
def explain_out_of_memory(spec: RunSpec, run: Path) -> Generator[None]:
    """Convert an out-of-memory error of torch or Python within the block into an `OutOfMemoryError`."""
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        train, context_length = spec.train, spec.model_config(ANY_VOCAB_SIZE).context_length
        newest = next(iter(checkpoints.saved(run)), None)
        kept = (
            f"the checkpoint of step {newest[0]} is kept: free memory and --resume" if newest else "nothing was saved"
        )
        raise OutOfMemoryError(
            f"out of memory: batch_size={train.batch_size} with context_length={context_length} does not fit; {kept}, "
            f"or train in another directory with a smaller batch_size (and grad_accumulation={train.grad_accumulation} "
            f"raised by the same factor, for the same tokens in a step) or a smaller context_length"
        ) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Return True for an out-of-memory error of Python, torch or the system."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, OSError):  # from mapping a file into memory
        return error.errno == errno.ENOMEM
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in text for words in _WORDS)
