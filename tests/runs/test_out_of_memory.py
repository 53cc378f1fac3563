"""Tests that out-of-memory errors become one line; tests/stress runs out of memory for real."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lmzoo.errors import InputError, OutOfMemoryError
from lmzoo.runs.out_of_memory import explain_out_of_memory, is_out_of_memory
from lmzoo.runs.run import RunSpec, train_run

MakeSpec = Callable[..., RunSpec]


def test_train_run_refuses_a_model_that_no_memory_holds(tmp_path: Path, small_spec: MakeSpec) -> None:
    spec = small_spec(context_length=1 << 39)  # a table of positions of 35 TB
    with pytest.raises(InputError, match=r"^a batch of \d+ tokens needs \d+ TB of memory") as caught:
        train_run(spec, tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_explain_out_of_memory_names_the_checkpoint_that_is_kept(tmp_path: Path, small_spec: MakeSpec) -> None:
    train_run(small_spec(), tmp_path / "run")
    with (
        pytest.raises(OutOfMemoryError, match="the checkpoint of step 12 is kept: free memory and --resume"),
        explain_out_of_memory(small_spec(), tmp_path / "run"),
    ):
        torch.empty(1 << 55)


@pytest.mark.parametrize(
    "error",
    [MemoryError(), torch.OutOfMemoryError("CUDA out of memory."), OSError(errno.ENOMEM, "Cannot allocate memory")],
)
def test_is_out_of_memory_knows_other_errors(error: Exception) -> None:
    assert is_out_of_memory(error)


@pytest.mark.parametrize("error", [RuntimeError("shapes do not fit"), OSError(errno.EIO, "Input/output error")])
def test_explain_out_of_memory_passes_other_errors_on(tmp_path: Path, small_spec: MakeSpec, error: Exception) -> None:
    with pytest.raises(type(error)) as caught, explain_out_of_memory(small_spec(), tmp_path):
        raise error
    assert caught.value is error
