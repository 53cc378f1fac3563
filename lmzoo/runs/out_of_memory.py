"""Out of memory is the user's to mend: whoever runs out of it is told in one line which settings take it."""

from __future__ import annotations

import errno
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import torch

from lmzoo.errors import OutOfMemoryError
from lmzoo.runs.spec import RunSpec
from lmzoo.storage import checkpoints

# What torch's allocators and libraries say, in lower case; only CUDA's has a type of its own.
_WORDS = ("out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory", "bad_alloc")


@contextmanager
def memory_told(spec: RunSpec, context_length: int, run: Path) -> Generator[None]:
    """Turn torch's and Python's own words for a lack of memory within the block into an `OutOfMemoryError`."""
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        train = spec.train
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
    """Whether an error says that memory ran out."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, OSError):  # from mapping a file
        return error.errno == errno.ENOMEM
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in text for words in _WORDS)
