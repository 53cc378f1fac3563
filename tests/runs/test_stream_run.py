"""Tests runs on a streamed corpus: resuming is bitwise exact after any step, and the run can be used like any other."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from lmzoo.compare import compare
from lmzoo.data import isolated_stream, stream_batches
from lmzoo.errors import CheckpointError, ConfigError, DataError, LmzooError
from lmzoo.runs.run import RunSpec, evaluate_run, evaluate_run_positions, load_run, make_spec, train_part, train_run
from lmzoo.storage import atomic, checkpoints
from lmzoo.train.events import Event, NoteEvent
from lmzoo.train.signals import Interrupted
from tests.distributed.processes import TOLERANCE, Forks, copy_until, curve, difference
from tests.helpers import SMALL, TEXT, assert_same, tensors
from tests.runs.test_resume import interrupt_at, losses

MakeSpec = Callable[..., RunSpec]

BLOCK_WINDOWS = 13
RECIPE = {"steps": 24, "batch_size": 16, "eval_every": 8, "log_every": 1, "warmup_steps": 2}


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """About 2,500 bytes in two Parquet files; the first tenth is held out for validation."""
    folder = tmp_path / "cats"
    folder.mkdir()
    lines = TEXT.splitlines()[:50]
    for shard in range(2):
        table = pyarrow.table({"text": lines[25 * shard : 25 * shard + 25]})
        pyarrow.parquet.write_table(table, folder / f"{shard}.parquet", row_group_size=10)
    return folder


@pytest.fixture
def stream_spec(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> MakeSpec:
    """A run of 24 steps that ends in the third pass over the data, with small blocks, so that it reads many."""
    for batches in (stream_batches.StreamBatches, isolated_stream.IsolatedStreamBatches):
        monkeypatch.setattr(batches.__init__, "__defaults__", (BLOCK_WINDOWS,))

    def make(data: str | None = None, tokenizer: str | None = None, **settings: object) -> RunSpec:
        return make_spec(
            "gpt2", data or f"hf:{dataset}", tokenizer=tokenizer, overrides={**SMALL, **RECIPE, **settings}
        )

    return make


@pytest.mark.parametrize(
    ("tokenizer", "settings", "stops"),
    [
        ("byte", {"dropout": 0.2}, (1, 6, 7, 17, 23)),
        ("bpe:300", {"batch_size": 5, "grad_accumulation": 3, "schedule": "wsd"}, (8, 15)),
        ("char+unk", {"batch_size": 40}, (12,)),
        ("byte", {"documents": "isolated"}, (5, 17, 22)),
    ],
)
def test_stream_run_resumed_after_any_step_is_bitwise_exact(
    tmp_path: Path, stream_spec: MakeSpec, tokenizer: str, settings: dict[str, object], stops: list[int]
) -> None:
    spec = stream_spec(tokenizer=tokenizer, **settings)
    train_run(spec, tmp_path / "whole")
    state = json.loads((checkpoints.path_of(tmp_path / "whole", 24) / "training.json").read_text())
    assert state["position"]["epoch"] >= 1
    for step in stops:
        run = tmp_path / f"stopped-{step}"
        with pytest.raises(Interrupted):
            train_run(spec, run, listeners=[interrupt_at(step)])
        train_run(spec, run, resume=True)
        assert_same(tensors(run, 24), tensors(tmp_path / "whole", 24))
        assert losses(run) == losses(tmp_path / "whole")


@pytest.mark.distributed
def test_stream_run_on_two_processes_reads_as_one_does(
    tmp_path: Path, stream_spec: MakeSpec, dataset: Path, forks: Forks
) -> None:
    """Same loss curve and position in the data; resuming is exact, and close with another number of processes."""
    settings = {**SMALL, **RECIPE, "precision": "float32", "checkpoint_every": 5, "keep_checkpoints": 9}
    spec = stream_spec(**settings)
    one, two, stopped, more, fewer = (tmp_path / name for name in ("one", "two", "stopped", "more", "fewer"))
    train_run(spec, one)
    copy_until(one, more, 10)
    job = {"model": "gpt2", "data": f"hf:{dataset}", "settings": settings, "block_windows": BLOCK_WINDOWS}
    jobs = [
        {**job, "out": str(two)},
        {**job, "out": str(stopped), "stop_at": 7},
        {**job, "out": str(stopped), "resume": True},
        {**job, "out": str(more), "resume": True, "reshard": True},
    ]
    assert forks.on_ranks(jobs, 2, tmp_path) == [["", "stopped at 7", "", ""]] * 2
    copy_until(two, fewer, 10)
    train_run(spec, fewer, resume=True, reshard=True)

    assert curve(stopped) == curve(two)
    assert_same(tensors(stopped, 24), tensors(two, 24))
    for run in (two, more, fewer):
        assert difference(run, one) <= TOLERANCE
        assert positions(run) == positions(one)
    assert positions(one)[24]["epoch"] == 2


def positions(run: Path) -> dict[int, dict[str, object]]:
    """Return the position in the data of each checkpoint, by step, without the rows that `datasets` has read ahead."""
    return {
        step: {
            key: value
            for key, value in json.loads((folder / "training.json").read_text())["position"].items()
            if key != "library"
        }
        for step, folder in checkpoints.saved(run)
    }


def test_stream_run_without_a_position_cannot_be_resumed(tmp_path: Path, stream_spec: MakeSpec) -> None:
    spec, run = stream_spec(), tmp_path / "run"
    with pytest.raises(Interrupted):
        train_run(spec, run, listeners=[interrupt_at(11)])
    edit_state(run, 11, lambda state: state.update(position=None))
    with pytest.raises(CheckpointError, match="position must be given: the data are a stream"):
        train_run(spec, run, resume=True)


def edit_state(run: Path, step: int, change: Callable[[dict[str, object]], None]) -> None:
    """Change training.json of a checkpoint, and its manifest to match, as an attacker would."""
    folder = checkpoints.path_of(run, step)
    state = json.loads((folder / "training.json").read_text())
    change(state)
    with atomic.new_folder(folder) as new:
        for file in folder.iterdir():
            if file.name not in ("training.json", "manifest.json"):
                (new / file.name).write_bytes(file.read_bytes())
        (new / "training.json").write_text(json.dumps(state))


def test_stream_run_can_be_evaluated_and_loaded(tmp_path: Path, stream_spec: MakeSpec, dataset: Path) -> None:
    run = tmp_path / "run"
    result = train_run(stream_spec(), run)
    tables = tomllib.loads((run / "config.toml").read_text())
    assert tables["data"]["data"] == f"hf:{dataset}"
    assert tables["data"]["tokenizer"] == "byte"
    found = evaluate_run(run)
    assert (found.loss, found.bits_per_byte) == pytest.approx((result.loss, result.bits_per_byte), abs=1e-6)
    held_out = "".join(f"{line}\n\n" for line in TEXT.splitlines()[:6])
    assert found.tokens == len(held_out) - 1
    assert evaluate_run_positions(run, length=4)[-1].last == 4
    assert evaluate_run(run, f"hf:{dataset},split=train").loss == pytest.approx(found.loss)
    text = tmp_path / "other.txt"
    text.write_text(TEXT)
    assert evaluate_run(run, str(text)).tokens > found.tokens
    assert load_run(run).model.config.vocab_size == 256
    assert (run / "sample.txt").read_text().startswith(TEXT[0])


def test_stream_run_says_what_was_searched_for_copies(tmp_path: Path, stream_spec: MakeSpec) -> None:
    events: list[Event] = []
    train_part(stream_spec(), tmp_path / "run", 1, listeners=[events.append])
    notes = [event.message for event in events if isinstance(event, NoteEvent)]
    assert any("documents of the validation split nearly equal one of the first" in note for note in notes)


def test_evaluate_run_of_a_file_on_a_stream(tmp_path: Path, small_spec: MakeSpec, dataset: Path) -> None:
    train_run(small_spec(), tmp_path / "run")
    held_out = "".join(f"{line}\n\n" for line in TEXT.splitlines()[:6])
    assert evaluate_run(tmp_path / "run", f"hf:{dataset}").tokens == len(held_out) - 1


def refused(error: type[LmzooError], message: str, spec: RunSpec, run: Path) -> None:
    with pytest.raises(error, match=message) as caught:
        train_run(spec, run, resume=True)
    assert "\n" not in str(caught.value)


def test_stream_run_refuses_data_that_changed(tmp_path: Path, stream_spec: MakeSpec, dataset: Path) -> None:
    spec, run = stream_spec(), tmp_path / "run"
    with pytest.raises(Interrupted):
        train_run(spec, run, listeners=[interrupt_at(5)])
    moved = dataset.rename(tmp_path / "elsewhere")
    refused(DataError, "cannot be opened", spec, run)
    (moved / "1.parquet").rename(moved / "2.parquet")
    refused(DataError, r"data.corpus_sha256=.* was made with", stream_spec(f"hf:{moved}"), run)
    assert evaluate_run(run).tokens > 0  # on the validation text that the run keeps
    moved = moved.rename(tmp_path / "elsewhere")
    (moved / "2.parquet").rename(moved / "1.parquet")
    train_run(stream_spec(f"hf:{moved}"), run, resume=True)  # the same data in another place are the same data
    assert checkpoints.saved(run)[0][0] == 24


def test_make_spec_chooses_a_tokenizer_for_a_stream(stream_spec: MakeSpec) -> None:
    assert stream_spec().tokenizer == "byte"
    assert stream_spec(tokenizer="char+unk").tokenizer == "char+unk"
    with pytest.raises(ConfigError, match=r"tokenizer='char' knows only .*: use byte, bpe:N or char\+unk") as caught:
        stream_spec(tokenizer="char")
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="'colum' is not an option of hf:"):
        stream_spec("hf:name,colum=text")


def test_compare_refuses_a_stream(tmp_path: Path, dataset: Path) -> None:
    for tokenizer in ("char", "byte"):
        with pytest.raises(DataError, match="is a stream, but a text of known length is needed"):
            compare(["bigram", "gpt2"], f"hf:{dataset}", tmp_path / "out", tokenizer=tokenizer)
    assert not (tmp_path / "out").exists()


def test_train_run_fits_a_model_without_parameters_to_a_stream(
    dataset: Path, tmp_path: Path, stream_spec: MakeSpec
) -> None:
    """`stream_spec` makes the blocks small."""
    stream_spec()
    settings = {"context_length": 16, "order": 3, "schedule": "constant", "batch_size": 4, "eval_every": 8}
    specs = [make_spec("ngram", f"hf:{dataset}", overrides={**settings, "steps": steps}) for steps in (5, 9)]
    train_run(specs[0], tmp_path / "run")
    train_run(specs[1], tmp_path / "run", resume=True, prolong=True)
    train_run(specs[1], tmp_path / "whole")
    assert_same(tensors(tmp_path / "run", 9), tensors(tmp_path / "whole", 9))
