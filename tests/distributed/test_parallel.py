"""Tests that two processes train like one for all kinds of parameters, and resume exactly."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import lmzoo
from lmzoo import configs, registry
from lmzoo.conformance.tiny import subject
from lmzoo.distributed import parallel
from lmzoo.errors import ConfigError
from lmzoo.layers.stack import Stack, blocks_of
from lmzoo.runs.run import load_run, make_spec, train_run
from lmzoo.storage import checkpoints, models
from lmzoo.train import muon
from tests.distributed.processes import TOLERANCE, Forks, Job, copy_until, curve, difference, everything, on_ranks
from tests.distributed.programs import Choosing, train_all
from tests.helpers import SMALL, assert_same

RECIPE = {"steps": 6, "batch_size": 4, "eval_every": 3, "log_every": 1, "warmup_steps": 2, "grad_clip": 0.5}
RECIPE |= {"eval_tokens": 600, "learning_rate": 3e-3, "precision": "float32"}


@pytest.fixture
def choosing() -> Iterator[None]:
    """Register the model of `programs.py` for one test."""
    lmzoo.register_model("choosing")(Choosing)
    yield
    del registry._classes["choosing"]


def tiny_settings(family: str) -> dict[str, Any]:
    """Return the small config that the checks of this family use, without the vocabulary size."""
    config = {key: value for key, value in configs.to_dict(subject(family).config).items() if value is not None}
    del config["vocab_size"]
    return {f"model.{key}": value for key, value in config.items()} | {"model.context_length": 16}


def kinds_of_parameters(family: str) -> set[tuple[str, int, bool, bool]]:
    """Return what DDP and FSDP can treat differently: role, dimensions, tied or not, in a block or not."""
    model = subject(family).model()
    in_blocks = {id(parameter) for block in blocks_of(model) for parameter in block.parameters()}
    tied = set() if any(True for _ in model.head.parameters()) else {id(getattr(model.head, "weight", None))}
    return {
        (group["role"], parameter.ndim, id(parameter) in tied, id(parameter) in in_blocks)
        for group in model.parameter_groups(0.0)
        for parameter in group["params"]
    }


def families_with_every_kind_of_parameter() -> list[str]:
    """Choose a few built-in families that together have all kinds of parameters."""
    kinds = {family: kinds_of_parameters(family) for family in sorted(registry._builtin_families())}
    missing, chosen = set().union(*kinds.values()), []
    while missing:
        chosen.append(max(kinds, key=lambda family: len(kinds[family] & missing)))
        missing -= kinds[chosen[-1]]
    return chosen


def test_families_with_every_kind_of_parameter_are_at_most_four() -> None:
    chosen = families_with_every_kind_of_parameter()
    assert len(chosen) <= 4
    kinds = set().union(*map(kinds_of_parameters, chosen))
    assert {("embedding", 2, True, False), ("head", 2, False, False), ("vector", 2, False, True)} <= kinds  # tied, conv


@pytest.mark.distributed
@pytest.mark.usefixtures("choosing")
def test_train_run_learns_the_same_on_two_processes(tmp_path: Path, text: Path) -> None:
    """Same loss curve at the same global batch: DDP, FSDP, accumulation, ragged targets, tied and unused weights."""
    families = families_with_every_kind_of_parameter()
    cases: dict[str, Job] = {name: {"model": name, "settings": tiny_settings(name)} for name in families}
    for name in (
        families
    ):  # a balance loss multiplies means over the batch: the loss of the whole is not the mean of its halves'
        if hasattr(registry.model_class(name).config_class, "balance_loss"):
            cases[name]["settings"] = {**tiny_settings(name), "balance_loss": 0.0}
    cases["accumulated"] = {"model": "gpt2", "settings": {**SMALL, "grad_accumulation": 3}}
    cases["ragged"] = {"model": "llama", "settings": {**tiny_settings("llama"), "grad_accumulation": 2}, "ragged": True}
    for number, line in enumerate(text.read_text(encoding="utf-8").splitlines()):
        (tmp_path / f"{number:03}.txt").write_text(line[: 3 + number % 37], encoding="utf-8")
    isolated = {**SMALL, "documents": "isolated", "grad_accumulation": 2}
    cases["isolated"] = {"model": "gpt2", "settings": isolated, "data": str(tmp_path / "*.txt")}
    cases["recomputed"] = {"model": "mamba", "settings": {**tiny_settings("mamba"), "gradient_checkpointing": True}}
    cases["unused"] = {"model": "choosing", "settings": {"context_length": 16, "batch_size": 8}}
    sharing = {**tiny_settings("hybrid"), "model.pattern": "shared mamba shared", "model.n_layers": 3}
    cases["shared"] = {"model": "hybrid", "settings": sharing}
    cases["bf16"] = {"model": "gpt2", "settings": {**SMALL, "precision": "bf16"}}
    by_muon: Job = {"model": "gpt2", "settings": {**SMALL, "optimizer": "muon"}}
    with_muon = cases | {"muon": {**by_muon, "unrounded": True}, "muon in bf16": by_muon}
    places = {"one": with_muon, "ddp": with_muon, "fsdp": cases}

    def jobs(place: str, **settings: Any) -> list[Job]:
        return [
            {
                "data": str(text),
                **case,
                "out": str(tmp_path / place / name),
                "settings": {**RECIPE, "checkpoint_every": 6, **case["settings"], **settings},
            }
            for name, case in places[place].items()
        ]

    assert not any(train_all(jobs("one")))
    both = [*jobs("ddp"), *jobs("fsdp", parallel="fsdp")]
    assert on_ranks(both, 2, tmp_path) == [[""] * len(both)] * 2
    apart = {
        f"{place} {name}": difference(tmp_path / place / name, tmp_path / "one" / name)
        for place in ("ddp", "fsdp")
        for name in places[place]
    }
    bf16 = {key: apart.pop(key) for key in list(apart) if key.endswith("bf16")}
    assert {key: value for key, value in apart.items() if value > TOLERANCE} == {}
    assert max(bf16.values()) < 5e-3  # each rank rounds products of half the rows
    for name in families:  # the portable file is the same for FSDP and one process
        ours, theirs = (tensors_of_model(tmp_path / place / name) for place in ("fsdp", "one"))
        for key, tensor in theirs.items():
            torch.testing.assert_close(ours[key], tensor, atol=1e-3, rtol=1e-2, msg=lambda text, name=name: name + text)


def tensors_of_model(run: Path) -> dict[str, torch.Tensor]:
    return models.tensors_of(models.load_model(run))


@pytest.mark.distributed
def test_train_run_resumes_exactly_on_as_many_processes_and_closely_on_others(
    tmp_path: Path, text: Path, forks: Forks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(muon, "multiplies_bf16", lambda _: False)  # as in the other processes: "unrounded"
    common = {**SMALL, **RECIPE, "keep_checkpoints": 4}
    kinds = {
        f"{how}{dropout}": {**common, "parallel": how, "dropout": dropout}
        for how in ("ddp", "fsdp")
        for dropout in (0.0, 0.2)
    }
    kinds["muon"] = {**common, "optimizer": "muon"}

    def jobs(place: str, *names: str, **more: Any) -> list[Job]:
        plain: Job = {"model": "gpt2", "data": str(text), "unrounded": True, **more}
        return [{**plain, "out": str(tmp_path / place / name), "settings": kinds[name]} for name in names]

    close = ("ddp0.0", "fsdp0.0", "muon")
    assert forks.on_ranks(jobs("whole", *kinds), 2, tmp_path) == [[""] * len(kinds)] * 2
    for place in ("again", "four", "one"):
        for name in kinds if place == "again" else close:
            copy_until(tmp_path / "whole" / name, tmp_path / place / name, 3)

    # The same number of processes: bitwise equal, also the dropout of each rank.
    assert forks.on_ranks(jobs("again", *kinds, resume=True), 2, tmp_path) == [[""] * len(kinds)] * 2
    for name in kinds:
        ours, theirs = tmp_path / "whole" / name, tmp_path / "again" / name
        assert curve(ours) == curve(theirs)
        states = everything(ours, 6)
        assert_same(states, everything(theirs, 6))
        assert not torch.equal(*(states[f"optimizer.safetensors:random/cpu{rank}"] for rank in ("", ".1")))
    assert list(checkpoints.path_of(tmp_path / "whole" / "fsdp0.0", 6).glob("shard-*"))

    # Another number: refused without `reshard`, close with it.
    for name in close:
        run = tmp_path / "one" / name
        spec = make_spec("gpt2", str(text), overrides=kinds[name])
        before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
        with pytest.raises(
            ConfigError, match=r"world_size=1, but the run was made with 2: resume it with 2 .* --reshard"
        ):
            train_run(spec, run, resume=True)
        assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
        train_run(spec, run, resume=True, reshard=True)
    assert forks.on_ranks(jobs("four", *close, resume=True, reshard=True), 4, tmp_path) == [[""] * len(close)] * 4
    for place, world_size in (("one", 1), ("four", 4)):
        for name in close:
            run = tmp_path / place / name
            assert difference(run, tmp_path / "whole" / name) <= TOLERANCE
            assert load_run(run).tables["machine"]["world_size"] == world_size


def test_units_are_blocks_without_shared_parameters() -> None:
    """Modules without parameters, and those that share a weight with another module, are no units."""
    block = torch.nn.ModuleDict({"experts": torch.nn.ModuleList(torch.nn.Linear(2, 2) for _ in range(2))})
    model = torch.nn.Module()
    model.tokens = torch.nn.Linear(2, 2)
    model.blocks = Stack([block, torch.nn.Linear(2, 2), torch.nn.Linear(2, 2), torch.nn.ReLU()])
    model.blocks[2].weight = model.tokens.weight
    assert list(parallel._units(model)) == [block, model.blocks[1]]
