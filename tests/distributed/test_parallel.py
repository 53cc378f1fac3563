"""Two processes train as one does, whatever the family; they resume exactly, and stop together."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import lmzoo
from lmzoo import configs, registry
from lmzoo.conformance.tiny import subject
from lmzoo.distributed import launch, parallel
from lmzoo.distributed.ranks import ALONE, Ranks
from lmzoo.errors import ConfigError
from lmzoo.layers.stack import blocks_of
from lmzoo.runs.metrics import read_metrics
from lmzoo.runs.run import load_run, make_spec, train_run
from lmzoo.storage import checkpoints, models, safetensors
from lmzoo.train import muon
from lmzoo.train.config import TrainConfig
from tests.distributed.programs import Choosing, train_all
from tests.helpers import SMALL, assert_same, tensors

PROGRAM = Path(__file__).with_name("programs.py")
RECIPE = {"steps": 6, "batch_size": 4, "eval_every": 3, "log_every": 1, "warmup_steps": 2, "grad_clip": 0.5}
RECIPE |= {"eval_tokens": 600, "learning_rate": 3e-3, "precision": "float32"}
TOLERANCE = 1e-5

Job = dict[str, Any]


def environment() -> dict[str, str]:
    """One thread, and nothing that leaves the loopback interface."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}


@pytest.fixture
def choosing() -> Iterator[None]:
    """The program's own model, for as long as a test needs it here."""
    lmzoo.register_model("choosing")(Choosing)
    yield
    del registry._classes["choosing"]


def on_ranks(jobs: list[Job], world_size: int, folder: Path) -> list[list[str]]:
    """Train `jobs` on so many processes; what each of them ended with, for each rank."""
    file = folder / f"jobs-{world_size}-{time.monotonic_ns()}.json"
    file.write_text(json.dumps(jobs), encoding="utf-8")
    command = [*torchrun(world_size), str(PROGRAM), str(file)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return [json.loads(file.with_suffix(f".{rank}").read_text()) for rank in range(world_size)]


def torchrun(world_size: int) -> list[str]:
    """torch's launcher, on the loopback interface."""
    place = ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0", "--local-addr", "localhost"]
    return [sys.executable, "-m", "torch.distributed.run", *place, "--nproc-per-node", str(world_size)]


def curve(run: Path) -> list[tuple[int, str, float]]:
    return [(line["step"], line["split"], line["loss"]) for line in read_metrics(run)]


def difference(run: Path, other: Path) -> float:
    """The largest difference between two loss curves, which must have the same points."""
    ours, theirs = curve(run), curve(other)
    assert [point[:2] for point in ours] == [point[:2] for point in theirs]
    return max(abs(a[2] - b[2]) for a, b in zip(ours, theirs, strict=True))


def tiny_settings(family: str) -> dict[str, Any]:
    """The small config that the checks of this family use, without what the tokenizer brings."""
    config = {key: value for key, value in configs.to_dict(subject(family).config).items() if value is not None}
    del config["vocab_size"]
    return {f"model.{key}": value for key, value in config.items()} | {"model.context_length": 16}


def kinds_of_parameters(family: str) -> set[tuple[str, int, bool, bool]]:
    """What DDP and FSDP can treat differently: role, dimensions, whether it is tied, whether it is in a block."""
    model = subject(family).model()
    in_blocks = {id(parameter) for block in blocks_of(model) for parameter in block.parameters()}
    tied = set() if any(True for _ in model.head.parameters()) else {id(getattr(model.head, "weight", None))}
    return {
        (group["role"], parameter.ndim, id(parameter) in tied, id(parameter) in in_blocks)
        for group in model.parameter_groups(0.0)
        for parameter in group["params"]
    }


def families_with_every_kind_of_parameter() -> list[str]:
    """A few families that together have all kinds. Other processes do not know what tests have registered here."""
    kinds = {family: kinds_of_parameters(family) for family in sorted(registry._builtin_families())}
    missing, chosen = set().union(*kinds.values()), []
    while missing:
        chosen.append(max(kinds, key=lambda family: len(kinds[family] & missing)))
        missing -= kinds[chosen[-1]]
    return chosen


def test_families_with_every_kind_of_parameter_are_few() -> None:
    chosen = families_with_every_kind_of_parameter()
    assert len(chosen) <= 4
    kinds = set().union(*map(kinds_of_parameters, chosen))
    assert {("embedding", 2, True, False), ("head", 2, False, False), ("vector", 2, False, True)} <= kinds  # tied, conv


@pytest.mark.distributed
@pytest.mark.usefixtures("choosing")
def test_train_run_learns_the_same_on_two_processes(tmp_path: Path, text: Path) -> None:
    """The loss curve at the same global batch: DDP and FSDP, accumulation, ragged targets, tied and unused weights."""
    families = families_with_every_kind_of_parameter()
    cases: dict[str, Job] = {name: {"model": name, "settings": tiny_settings(name)} for name in families}
    cases["accumulated"] = {"model": "gpt2", "settings": {**SMALL, "grad_accumulation": 3}}
    cases["ragged"] = {"model": "llama", "settings": {**tiny_settings("llama"), "grad_accumulation": 2}, "ragged": True}
    cases["recomputed"] = {"model": "mamba", "settings": {**tiny_settings("mamba"), "gradient_checkpointing": True}}
    cases["unused"] = {"model": "choosing", "settings": {"context_length": 16, "batch_size": 8}}
    cases["bf16"] = {"model": "gpt2", "settings": {**SMALL, "precision": "bf16"}}
    by_muon: Job = {"model": "gpt2", "settings": {**SMALL, "optimizer": "muon"}}
    with_muon = cases | {"muon": {**by_muon, "unrounded": True}, "muon in bf16": by_muon}
    places = {"one": with_muon, "ddp": with_muon, "fsdp": cases}

    def jobs(place: str, **settings: Any) -> list[Job]:
        return [
            {
                **case,
                "data": str(text),
                "out": str(tmp_path / place / name),
                "settings": {**RECIPE, **case["settings"], **settings},
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
    assert max(bf16.values()) < 5e-3  # half the rows are rounded in other products
    for name in families:  # the portable form, whoever wrote it
        ours, theirs = (tensors_of_model(tmp_path / place / name) for place in ("fsdp", "one"))
        for key, tensor in theirs.items():
            torch.testing.assert_close(ours[key], tensor, atol=1e-3, rtol=1e-2, msg=lambda text, name=name: name + text)


def tensors_of_model(run: Path) -> dict[str, torch.Tensor]:
    return models.tensors_of(models.load_model(run))


@pytest.mark.distributed
def test_resume_on_as_many_processes_is_exact_and_on_others_close(
    tmp_path: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(muon, "DTYPE", torch.float32)  # as in the other processes: "unrounded"
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
    assert on_ranks(jobs("whole", *kinds), 2, tmp_path) == [[""] * len(kinds)] * 2
    for place in ("again", "four", "one"):
        for name in kinds if place == "again" else close:
            copy_until(tmp_path / "whole" / name, tmp_path / place / name, 3)

    # As many: to the bit, each rank's own dropout included.
    assert on_ranks(jobs("again", *kinds, resume=True), 2, tmp_path) == [[""] * len(kinds)] * 2
    for name in kinds:
        ours, theirs = tmp_path / "whole" / name, tmp_path / "again" / name
        assert curve(ours) == curve(theirs)
        states = everything(ours, 6)
        assert_same(states, everything(theirs, 6))
        assert not torch.equal(*(states[f"optimizer.safetensors:random/cpu{rank}"] for rank in ("", ".1")))
    assert list(checkpoints.path_of(tmp_path / "whole" / "fsdp0.0", 6).glob("shard-*"))

    # Another number: refused by name, and close when it is asked for.
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
    assert on_ranks(jobs("four", *close, resume=True, reshard=True), 4, tmp_path) == [[""] * len(close)] * 4
    for place, world_size in (("one", 1), ("four", 4)):
        for name in close:
            run = tmp_path / place / name
            assert difference(run, tmp_path / "whole" / name) <= TOLERANCE
            assert load_run(run).tables["machine"]["world_size"] == world_size


def copy_until(run: Path, new: Path, step: int) -> None:
    """A copy of a run as if it had been killed after the checkpoint of `step`."""
    shutil.copytree(run, new)
    for number, folder in checkpoints.saved(new):
        if number > step:
            shutil.rmtree(folder)


def everything(run: Path, step: int) -> dict[str, torch.Tensor]:
    """`tensors`, and what lies in shards."""
    found = tensors(run, step)
    for file in sorted(checkpoints.path_of(run, step).glob("shard-*")):
        with safetensors.open_tensors(file) as shard:
            found |= {f"{file.name if shard.shapes[key] else ''}:{key}": shard.tensor(key) for key in shard.shapes}
    return found


# What ends a run ------------------------------------------------------------------------------------------------------

LONG = {**SMALL, "steps": 2000, "batch_size": 4, "eval_every": 2000, "eval_tokens": 64, "checkpoint_every": 20}
LONG |= {"warmup_steps": 2, "precision": "float32", "log_every": 1}


def start(command: list[str], run: Path, text: Path, *more: str, **settings: Any) -> subprocess.Popen[str]:
    """Train a long run by the command line."""
    words = [f"--set={key}={value}" for key, value in {**LONG, **settings}.items()]
    words = ["-m", "lmzoo", "train", "gpt2", "--data", str(text), "--out", str(run), "--resume", *more, *words]
    return subprocess.Popen(
        [*command, *words], env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_for_step(run: Path, step: int) -> None:
    """Until the first process has written of it."""
    limit = time.monotonic() + 120
    while time.monotonic() < limit:
        if (run / "metrics.jsonl").is_file() and any(line["step"] >= step for line in read_metrics(run)):
            return
        time.sleep(0.02)
    raise AssertionError(f"{run} never came to step {step}")


def ranks_of(process: subprocess.Popen[str]) -> list[int]:
    """The processes that a launcher has started, the first rank first."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    environments = {int(pid): Path(f"/proc/{pid}/environ").read_bytes().split(b"\0") for pid in children}
    numbers = {pid: next((v for v in values if v.startswith(b"RANK=")), None) for pid, values in environments.items()}
    return sorted((pid for pid, number in numbers.items() if number), key=lambda pid: numbers[pid] or b"")


@pytest.mark.distributed
def test_a_killed_process_takes_the_others_with_it_and_the_run_goes_on_exactly(tmp_path: Path, text: Path) -> None:
    run, whole = tmp_path / "run", tmp_path / "whole"
    process = start([sys.executable], run, text, "--nproc", "2", parallel="fsdp")
    wait_for_step(run, 25)
    victim = ranks_of(process)[1]
    os.kill(victim, signal.SIGKILL)
    began = time.monotonic()
    _, errors = process.communicate(timeout=60)
    assert time.monotonic() - began < 30
    assert process.returncode == 2
    *others, last = errors.splitlines()
    said = rf"lmzoo: process 1 of the run \({victim}\) was killed by SIGKILL, and all have stopped: go on .* --resume"
    assert re.fullmatch(said, last)
    assert all(line.startswith("lmzoo: another process of the run is gone") for line in others)  # rank 0, if in time
    assert len(others) <= 1
    reached = checkpoints.saved(run)[0][0]
    assert reached >= 20
    settings = {**LONG, "parallel": "fsdp"}
    job: Job = {"model": "gpt2", "data": str(text), "settings": settings, "stop_at": reached + 20}
    jobs = [{**job, "out": str(run), "resume": True}, {**job, "out": str(whole)}]
    stopped = f"stopped at {reached + 20}"
    assert on_ranks(jobs, 2, tmp_path) == [[stopped, stopped]] * 2
    assert_same(everything(run, reached + 20), everything(whole, reached + 20))
    assert curve(run) == curve(whole)


@pytest.mark.distributed
def test_sigterm_stops_all_after_the_same_step_with_everything_saved(tmp_path: Path, text: Path) -> None:
    run = tmp_path / "run"
    process = start(torchrun(2), run, text, checkpoint_every=2000)
    wait_for_step(run, 5)
    os.kill(ranks_of(process)[1], signal.SIGTERM)  # one of them: the other hears of it
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    said = re.findall(r"^lmzoo: (.*)$", errors, re.MULTILINE)
    (step,) = (step for step, _ in checkpoints.saved(run))
    assert len(said) == 1
    assert said[0].startswith(f"stopped after step {step}, saved in {checkpoints.path_of(run, step)}")
    assert read_metrics(run)[-1]["step"] == step


# The parts, on one process --------------------------------------------------------------------------------------------


def test_what_the_launched_processes_are_told() -> None:
    for given in (["--nproc", "2"], ["--nproc=2"]):
        assert launch.without_nproc(["train", "gpt2", *given, "--resume"]) == ["train", "gpt2", "--resume"]


def test_muon_needs_whole_matrices() -> None:
    TrainConfig(optimizer="muon", parallel="ddp")
    with pytest.raises(ConfigError, match="optimizer='muon' needs whole matrices, parallel='fsdp' cuts them"):
        TrainConfig(optimizer="muon", parallel="fsdp")


def test_a_batch_that_does_not_divide() -> None:
    ALONE.require_rows(3)
    Ranks(1, 3).require_rows(6)
    with pytest.raises(ConfigError, match="batch_size=6 must be divisible by the number of processes, world_size=4: "):
        Ranks(1, 4).require_rows(6)


def test_units_of_sharding() -> None:
    """The members of the outermost lists, but for those that share a weight with something outside."""
    block = torch.nn.ModuleDict({"experts": torch.nn.ModuleList(torch.nn.Linear(2, 2) for _ in range(2))})
    model = torch.nn.Module()
    model.tokens = torch.nn.Linear(2, 2)
    model.blocks = torch.nn.ModuleList([block, torch.nn.Linear(2, 2), torch.nn.Linear(2, 2), torch.nn.ReLU()])
    model.blocks[2].weight = model.tokens.weight
    assert list(parallel._units(model)) == [block, model.blocks[1]]
