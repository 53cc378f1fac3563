"""Tests the cells of a comparison: their directories, what they read, and how an interrupted grid goes on."""

from __future__ import annotations

import json
import random
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch

from lmzoo.compare import Results, compare, grid
from lmzoo.compare.grid import CELL_FILE, combine, make_cell, make_seeds
from lmzoo.compare.plan import make_specs
from lmzoo.compare.results import CellResult, ModelResult, to_json
from lmzoo.compare.tune import FINAL, RATE, with_values
from lmzoo.data.batches import BatchStream
from lmzoo.errors import ConfigError, DivergedError
from lmzoo.runs import inputs
from lmzoo.train.events import Event, StartEvent, StepEvent

TRAINING = {"steps": 12, "batch_size": 4, "context_length": 16, "eval_every": 6, "learning_rate": 3e-2}
SETTINGS = TRAINING | {"d_model": 8, "n_layers": 1, "n_heads": 2}
NAMES, SEEDS = ["bigram", "gpt2"], 3
CELLS = ["bigram", "gpt2", "bigram,seed=1338", "gpt2,seed=1338", "bigram,seed=1339", "gpt2,seed=1339"]
TIMED = ("train_tokens_per_s", "decode_tokens_per_s", "seconds", "eval_seconds")


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    rng = random.Random(0)
    words = "the sea was calm and a small ship sells shells on the shore when wind blew"
    lines = (" ".join(rng.choice(words.split()) for _ in range(rng.randint(3, 8))) for _ in range(150))
    path = tmp_path_factory.mktemp("text") / "sea.txt"
    path.write_text("\n".join(lines), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def finished(text: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Results, Path]:
    """A finished comparison with several seeds, for the tests that only read it."""
    out = tmp_path_factory.mktemp("finished") / "out"
    return compare(NAMES, text, out, seeds=SEEDS, settings=SETTINGS), out


def steps_of(events: list[Event]) -> int:
    return sum(isinstance(event, StepEvent) for event in events)


def lasting(value: Any) -> Any:
    """Return the content of results.json without the figures that measure time."""
    if isinstance(value, dict):
        return {key: lasting(each) for key, each in value.items() if key not in TIMED}
    return [lasting(each) for each in value] if isinstance(value, list) else value


def written(out: Path) -> Any:
    return lasting(json.loads((out / "results.json").read_text(encoding="utf-8")))


def test_cells_are_runs(finished: tuple[Results, Path]) -> None:
    results, out = finished
    assert sorted(path.name for path in (out / "runs").iterdir()) == sorted(CELLS)
    assert results.seeds == [1337, 1338, 1339]
    for row in results.models:
        assert [cell.run for cell in row.cells] == [f"runs/{name}" for name in CELLS if name.startswith(row.name)]
        assert [cell.seed for cell in row.cells] == results.seeds
        assert len({cell.loss for cell in row.cells}) == 3, "a seed decides the weights"
        assert row.loss == pytest.approx(sum(cell.loss or 0.0 for cell in row.cells) / 3)
        assert row.curve[-1] == [768, pytest.approx(row.loss)]
        assert row.run == f"runs/{row.name}"
        assert row.sample
    assert results.statistics is not None
    assert results.statistics.seeds == 3
    assert results.places == {"gpt2": (1, 1), "bigram": (2, 2)} or results.places == {"gpt2": (1, 2), "bigram": (1, 2)}


def test_compare_with_one_seed_stays_as_it_was(finished: tuple[Results, Path], text: str, tmp_path: Path) -> None:
    """The same directories as the first seed of a grid, which can so be extended."""
    one = compare(NAMES, text, tmp_path, settings=SETTINGS)
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == NAMES
    assert one.statistics is None
    assert {row.name: row.loss for row in one.models} == {row.name: row.cells[0].loss for row in finished[0].models}
    events: list[Event] = []
    compare(NAMES, text, tmp_path, seeds=SEEDS, settings=SETTINGS, listeners=[events.append])
    assert steps_of(events) == 4 * 12
    assert written(tmp_path)["models"] == written(finished[1])["models"]


def test_seeds_decide_the_data_order_which_all_models_share(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: dict[str, list[torch.Tensor]] = defaultdict(list)
    current = ""
    plain = BatchStream.batch

    def recorded(self: BatchStream, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        idx_BT, targets_BT = plain(self, step)
        read[current].append(torch.cat([idx_BT, targets_BT[:, -1:]], dim=1))
        return idx_BT, targets_BT

    def follow(event: Event) -> None:
        nonlocal current
        if isinstance(event, StartEvent):
            current = event.path.name

    monkeypatch.setattr(BatchStream, "batch", recorded)
    compare(NAMES, text, tmp_path, seeds=2, settings=SETTINGS | {"steps": 3}, listeners=[follow])
    tokens = {name: torch.cat(batches) for name, batches in read.items()}
    assert list(tokens) == CELLS[:4]
    assert torch.equal(tokens["bigram"], tokens["gpt2"])
    assert torch.equal(tokens["bigram,seed=1338"], tokens["gpt2,seed=1338"])
    assert not torch.equal(tokens["bigram"], tokens["bigram,seed=1338"])


def test_compare_reads_the_text_and_trains_the_tokenizer_once_for_all_cells(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: Counter[str] = Counter()

    def count(module: Any, name: str) -> None:
        plain = getattr(module, name)

        def counted(*arguments: Any, **options: Any) -> Any:
            counts[name] += 1
            return plain(*arguments, **options)

        monkeypatch.setattr(module, name, counted)

    for name in ("load_corpus", "train_tokenizer"):
        count(inputs, name)
    compare(NAMES, text, tmp_path, seeds=2, settings=SETTINGS | {"steps": 1})
    assert counts == {"load_corpus": 1, "train_tokenizer": 1}


@pytest.mark.parametrize("steps", [0, 5, 12, 31, 71])
def test_compare_goes_on_with_the_missing_cells(
    steps: int, finished: tuple[Results, Path], text: str, tmp_path: Path
) -> None:
    """Stopped before any step: at the start, inside a cell, between two cells, in a later seed, in the last step."""
    left = steps

    def stop(event: Event) -> None:
        nonlocal left
        if isinstance(event, StepEvent):
            left -= 1
            if left < 0:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare(NAMES, text, tmp_path, seeds=SEEDS, settings=SETTINGS, listeners=[stop])
    assert not (tmp_path / "results.json").exists() or not written(tmp_path)["complete"]
    events: list[Event] = []
    compare(NAMES, text, tmp_path, seeds=SEEDS, settings=SETTINGS, listeners=[events.append])
    done = steps // 12 * 12 + steps % 12 // 6 * 6  # finished cells, and the checkpoint of the interrupted one
    assert steps_of(events) == 72 - done
    assert written(tmp_path) == written(finished[1])


def test_compare_of_a_finished_grid_writes_the_same_bytes(finished: tuple[Results, Path], text: str) -> None:
    out = finished[1]
    before = {name: (out / name).read_bytes() for name in ("results.json", "table.md", "report.html")}
    events: list[Event] = []
    compare(NAMES, text, out, seeds=SEEDS, settings=SETTINGS, listeners=[events.append])
    assert not any(isinstance(event, StepEvent | StartEvent) for event in events)
    assert {name: (out / name).read_bytes() for name in before} == before


def test_cell_results_are_not_used_for_another_run(finished: tuple[Results, Path], text: str, tmp_path: Path) -> None:
    compare(["bigram"], text, tmp_path, settings=TRAINING)
    before = written(tmp_path)
    file = tmp_path / "runs" / "bigram" / CELL_FILE
    wrong = json.loads(file.read_text())
    wrong["cell"]["loss"] = 0.5
    file.write_text(json.dumps(wrong))
    assert compare(["bigram"], text, tmp_path, settings=TRAINING).models[0].loss == 0.5, "they are read"
    for damaged in ('{"key": 3}', "[]", "{", ""):
        file.write_text(damaged)
        compare(["bigram"], text, tmp_path, settings=TRAINING)
        assert written(tmp_path) == before
    file.write_text(json.dumps(wrong))
    config = tmp_path / "runs" / "bigram" / "config.toml"
    config.write_text(config.read_text() + "\n")
    compare(["bigram"], text, tmp_path, settings=TRAINING)
    assert written(tmp_path) == before, "the run was changed"
    with pytest.raises(ConfigError, match=r"train\.learning_rate=0\.01, but the run in .*bigram was made with 0\.03"):
        compare(["bigram"], text, tmp_path, settings=TRAINING | {"learning_rate": 0.01})


def test_compare_counts_the_seeds_that_diverged(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, calls = grid.train_run, []

    def diverging(spec: Any, run: Path, **options: Any) -> Any:
        calls.append(run.name)
        result = plain(spec, run, **options)
        if run.name == "gpt2,seed=1338":
            raise DivergedError("step 7: the loss is nan")
        return result

    monkeypatch.setattr(grid, "train_run", diverging)
    results = compare(NAMES, text, tmp_path, seeds=3, settings=SETTINGS | {"steps": 2})
    assert [row.name for row in results.ranked] == ["bigram"]
    (row,) = results.unranked
    assert (row.status, row.loss) == ("diverged", None)
    assert [cell.status for cell in row.cells] == ["trained", "diverged", "trained"]
    losses = ", ".join(f"{cell.loss:.3f}" for cell in row.cells if cell.loss is not None)
    assert row.problem == (
        f"1 of 3 seeds diverged (seed 1338: step 7: the loss is nan); the others have a loss of {losses}"
    )
    assert row.problem in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert len(calls) == 6
    again = compare(NAMES, text, tmp_path, seeds=3, settings=SETTINGS | {"steps": 2})
    assert len(calls) == 6, "a run that diverged is not trained again"
    assert to_json(again) == to_json(results)


def test_combine_takes_the_mean_of_the_points_that_all_curves_have() -> None:
    cells = [
        CellResult(seed=1, run="a", loss=2.0, bits_per_byte=1.0, curve=[[10, 4.0], [20, 2.0]]),
        CellResult(seed=2, run="b", loss=3.0, bits_per_byte=2.0, curve=[[10, 5.0], [15, 4.0], [20, 3.0]]),
    ]
    row = combine(ModelResult(name="m"), cells)
    assert (row.loss, row.bits_per_byte, row.seconds) == (2.5, 1.5, None)
    assert row.curve == [[10, 4.5], [20, 2.5]]


def test_make_cell_names_a_final_rate_that_does_not_follow_the_learning_rate(tmp_path: Path) -> None:
    (first,) = make_specs(["bigram"], "x.txt", "char", {"learning_rate": 0.01, "min_learning_rate": 0.002})
    values: list[dict[str, float]] = [{RATE: 0.1}, {RATE: 0.1, FINAL: 0.2}, {RATE: 0.1, FINAL: 0.0}, {FINAL: 0.201}]
    labels = [make_cell(tmp_path, with_values(first, given), first, "bigram").label for given in values]
    assert labels == [
        "runs/bigram,learning_rate=0.1",
        "runs/bigram,learning_rate=0.1",
        "runs/bigram,learning_rate=0.1,min_learning_rate=0",
        "runs/bigram,min_learning_rate=0.00201",
    ]
    (plain,) = make_specs(["bigram"], "x.txt", "char", {"learning_rate": 0.01})
    cell = make_cell(tmp_path, with_values(plain, {FINAL: 0.1}), plain, "bigram")
    assert cell.label == "runs/bigram,min_learning_rate=0.001", "it is given now"


@pytest.mark.parametrize("seeds", [0, -1, 2.0, True, 1001, "3"])
def test_make_seeds_refuses_other_numbers(seeds: Any) -> None:
    with pytest.raises(ConfigError, match=r"seeds=.* must be an integer in \[1, 1000\]"):
        make_seeds(1, seeds)


def test_compare_refuses_seeds_that_cannot_be(finished: tuple[Results, Path], text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"seeds=2 cannot be given: .*bigram is a finished run"):
        compare([str(finished[1] / "runs" / "bigram")], None, tmp_path / "out", seeds=2)
    with pytest.raises(ConfigError, match=r"seed=9223372036854775808 must be in"):
        compare(["bigram"], text, tmp_path / "out", seeds=2, settings={"seed": 2**63 - 1})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("changes", [{"steps": 13}, {"learning_rate": 0.1}, {"batch_size": 5}])
def test_compare_refuses_a_directory_of_other_settings_before_it_writes(
    changes: dict[str, Any], finished: tuple[Results, Path], text: str
) -> None:
    """Also if the first model is not in it yet, and would be trained first."""
    out = finished[1]
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    ((name, _),) = changes.items()
    with pytest.raises(ConfigError, match=rf"train\.{name}=.*, but the run in .* was made with") as caught:
        compare(["mlp", *NAMES], text, out, seeds=SEEDS, settings=SETTINGS | changes)
    assert "\n" not in str(caught.value)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
