"""Tests shards of the optimizer state: joined when they are read, and refused if they do not fit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lmzoo.distributed import sharded
from lmzoo.errors import CheckpointError
from lmzoo.storage import atomic, reading

SHARD = "shard-{:05d}-model-00001-of-00001.safetensors"


def shards(folder: Path, *pieces: dict[str, tuple[list[int], torch.Tensor]]) -> reading.Folder:
    """Make a folder of shards as torch writes them."""
    with atomic.new_folder(folder) as new:
        for number, piece in enumerate(pieces, 1):
            offsets = {key: {"saved_offsets": start} for key, (start, _) in piece.items()}
            save_file(
                {key: tensor for key, (_, tensor) in piece.items()},
                new / SHARD.format(number),
                metadata={"DCP_SHARDING_INFO": json.dumps(offsets)},
            )
    return reading.open_folder(folder)


def test_read_shards_joins_the_shards_of_a_tensor(tmp_path: Path) -> None:
    whole = torch.arange(10.0).reshape(5, 2)
    step = {"w/step": ([], torch.tensor(7.0))}
    folder = shards(
        tmp_path / "good", {"w/m": ([3, 0], whole[3:].clone())}, {"w/m": ([0, 0], whole[:3].clone()), **step}
    )
    assert sharded.shard_shapes(folder) == {"w/m": ((5, 2), torch.float32), "w/step": ((), torch.float32)}
    into = {"w/m": torch.empty(5, 2), "w/step": torch.empty(())}
    sharded.read_shards(folder, into)
    assert torch.equal(into["w/m"], whole)
    assert into["w/step"] == 7
    (tmp_path / "good" / SHARD.format(3)).write_bytes((tmp_path / "good" / SHARD.format(1)).read_bytes())
    with pytest.raises(CheckpointError, match=r"shard-00003.*: is not listed in manifest.json"):
        sharded.read_shards(folder, into)


@pytest.mark.parametrize(
    "pieces",
    [
        [{"w/m": ([1, 0], torch.ones(2, 2))}],
        [{"w/m": ([0, 0], torch.ones(2, 2))}, {"w/m": ([3, 0], torch.ones(2, 2))}],
        [{"w/m": ([0, 0], torch.ones(2, 2))}, {"w/m": ([1, 0], torch.ones(2, 2))}],
        [{"w/m": ([0, 0], torch.ones(2, 2))}, {"w/m": ([2, 0], torch.ones(2, 3))}],
        [{"w/m": ([0, 1], torch.ones(2, 2))}],
        [{"w/m": ([0, 0], torch.ones(2, 2))}, {"w/m": ([2, 0], torch.ones(2, 2).double())}],
        [{"w/m": ([0, 0], torch.ones(2, 2, dtype=torch.long))}],
        [{"w/m": ([], torch.ones(()))}, {"w/m": ([], torch.ones(()))}],
    ],
    ids=["begins late", "gap", "overlap", "widths", "other dimension", "types", "no float", "scalar twice"],
)
def test_shard_shapes_refuses_shards_that_do_not_fit(
    tmp_path: Path, pieces: list[dict[str, tuple[list[int], torch.Tensor]]]
) -> None:
    with pytest.raises(CheckpointError, match="the shards of w/m do not fit together"):
        sharded.shard_shapes(shards(tmp_path / "bad", *pieces))


@pytest.mark.parametrize(
    "info", ["{", "[]", "{}", '{"w/m": {"saved_offsets": 3}}', '{"w/m": {"saved_offsets": ["0"]}}']
)
def test_shard_shapes_refuses_a_damaged_header(tmp_path: Path, info: str) -> None:
    with atomic.new_folder(tmp_path / "bad") as new:
        save_file({"w/m": torch.ones(2)}, new / SHARD.format(1), metadata={"DCP_SHARDING_INFO": info})
    with pytest.raises(CheckpointError, match=r"is not a file of shards|do not fit together"):
        sharded.shard_shapes(reading.open_folder(tmp_path / "bad"))
