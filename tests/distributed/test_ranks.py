"""Tests the ranks: one rank alone, rows of a batch, and the collectives of two processes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from lmzoo.distributed.ranks import ALONE, Ranks, process_group, refuse_ranks
from lmzoo.errors import ConfigError
from tests.distributed.processes import Forks

# Each rank writes the results of all collectives, called with numbers that depend on its rank.
COLLECTIVES = """
import json, sys, torch
from pathlib import Path
from lmzoo.distributed.ranks import process_group

with process_group() as ranks:
    found = {
        "is_main": ranks.is_main,
        "sum": ranks.all_reduce_sum(torch.tensor([1.0, ranks.rank])).tolist(),
        "max": ranks.all_reduce_max(3 + ranks.rank),
        "gathered": [part.tolist() for part in ranks.gather(torch.tensor([ranks.rank]))],
        "rows": ranks.rows(torch.arange(4)[:, None]).flatten().tolist(),
    }
    ranks.barrier()
    Path(sys.argv[0]).with_name(f"{ranks.rank}.json").write_text(json.dumps(found))
"""


def test_ranks_alone_leave_everything_unchanged() -> None:
    tensor = torch.arange(3.0)
    assert ALONE.is_main
    assert not ALONE.orphaned
    assert ALONE.all_reduce_sum(tensor) is tensor
    assert ALONE.all_reduce_max(5) == 5
    assert ALONE.gather(tensor) == [tensor]
    assert ALONE.rows(tensor[:, None]).shape == (3, 1)
    ALONE.barrier()


def test_ranks_are_orphaned_when_their_launcher_has_died() -> None:
    assert Ranks(0, 2, launcher=-1).orphaned
    assert not Ranks(0, 2).orphaned


def test_refuse_ranks_names_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    refuse_ranks("it has its own processes")
    monkeypatch.setenv("WORLD_SIZE", "1")
    refuse_ranks("it has its own processes")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match=r"^WORLD_SIZE=2: start the command without torchrun: it has its own proc"):
        refuse_ranks("it has its own processes")


def test_process_group_without_torchrun_is_one_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with process_group() as ranks:
        assert (ranks.rank, ranks.world_size) == (0, 1)


@pytest.mark.distributed
def test_ranks_collectives_of_two_processes(tmp_path: Path, forks: Forks) -> None:
    program = tmp_path / "program.py"
    program.write_text(COLLECTIVES, encoding="utf-8")
    forks.run(program, 2)
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert (first.pop("is_main"), second.pop("is_main")) == (True, False)
    assert (first.pop("rows"), second.pop("rows")) == ([0, 1], [2, 3])
    assert first == second == {"sum": [2.0, 1.0], "max": 4, "gathered": [[0], [1]]}


def test_require_rows_refuses_a_batch_that_does_not_divide() -> None:
    ALONE.require_rows(3)
    Ranks(1, 3).require_rows(6)
    with pytest.raises(ConfigError, match="batch_size=6 must be divisible by the number of processes, world_size=4: "):
        Ranks(1, 4).require_rows(6)
