"""Tests the plan of a comparison: one budget for all models, and each setting for the models that have it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lmzoo.compare.plan import are_runs, cut_contexts, make_specs, read_specs
from lmzoo.errors import ConfigError
from lmzoo.runs.run import train_run
from lmzoo.runs.spec import RunSpec, make_spec
from lmzoo.runs.start import start_spec


def test_make_specs_gives_all_models_one_budget() -> None:
    specs = make_specs(["bigram.tiny", "gpt2.1m", "gpt2.10m"], "x.txt", "char", {"train.steps": 7, "n_layers": 2})
    assert {(spec.train.steps, spec.train.batch_size, spec.train.seed) for spec in specs} == {(7, 16, 1337)}
    assert {spec.model_config(65).context_length for spec in specs} == {64}
    own = [make_spec(spec.model, "x.txt").train for spec in specs]  # each with the recipe of its preset
    assert [spec.train.learning_rate for spec in specs] == [train.learning_rate for train in own]
    assert len({train.learning_rate for train in own}) > 1
    assert [getattr(spec.model_config(65), "n_layers", None) for spec in specs] == [None, 2, 2]
    wide = make_specs(["gpt2.1m", "gpt2.10m"], "x.txt", "char", {"context_length": 32})
    assert {spec.model_config(65).context_length for spec in wide} == {32}


def test_cut_contexts_names_models_with_a_longer_context_of_their_own() -> None:
    specs = make_specs(["gpt2.tiny", "gpt2.1m", "gpt2.10m"], "x.txt", "char", {})
    assert cut_contexts(specs) == {"gpt2.1m": 128, "gpt2.10m": 256}
    assert cut_contexts(make_specs(["gpt2.tiny", "gpt2.1m"], "x.txt", "char", {"context_length": 128})) == {}


def test_cut_contexts_leaves_out_models_that_do_not_look_so_far_back() -> None:
    specs = make_specs(["bigram", "mlp.tiny", "lstm.tiny"], "x.txt", "char", {"context_length": 16})
    assert cut_contexts(specs) == {"lstm.tiny": 64}
    assert "mlp.tiny" in cut_contexts(make_specs(["mlp.tiny"], "x.txt", "char", {"context_length": 4}))


def test_make_specs_gives_a_model_its_own_settings() -> None:
    settings = {
        "learning_rate": 0.5,
        "mamba.d_state": 8,
        "gpt2.learning_rate": 0.25,
        "gpt2.1m.train.learning_rate": 0.1,
    }
    specs = make_specs(["mamba.tiny", "gpt2.tiny", "gpt2.1m"], "x.txt", "char", settings)
    assert [getattr(spec.model_config(65), "d_state", None) for spec in specs] == [8, None, None]
    assert [spec.train.learning_rate for spec in specs] == [0.5, 0.25, 0.1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"llama.d_model": 8}, "llama.d_model=8: llama is not among the compared models: mamba.tiny, gpt2.tiny"),
        ({"gpt2.1m.d_model": 8}, "gpt2.1m is not among the compared models"),
        ({"gpt2.d_state": 8}, "d_state=8 is not a setting of gpt2.tiny or the training"),
        ({"mamba.steps": 3}, "mamba.steps=3: all models of a comparison have the same steps"),
        ({"mamba.model.context_length": 3}, "have the same model.context_length"),
        ({"mamba": 3}, "mamba=3 is not a setting"),
        ({"gpt3.d_model": 3}, "gpt3.d_model=3 is not a setting"),
    ],
)
def test_make_specs_refuses_settings_of_no_model(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_specs(["mamba.tiny", "gpt2.tiny"], "x.txt", "char", settings)


def run_of(make: Callable[..., RunSpec], path: Path, *arguments: object, **settings: object) -> str:
    train_run(make(*arguments, **settings), path)
    return str(path)


def test_read_specs_refuses_runs_that_differ(tmp_path: Path, small_spec: Callable[..., RunSpec]) -> None:
    first = run_of(small_spec, tmp_path / "first", steps=4)
    longer = run_of(small_spec, tmp_path / "longer", "bigram", steps=6)
    assert are_runs([first, longer])
    assert not are_runs(["gpt2", "bigram"])
    assert [spec.model for spec in read_specs([first], None, None, {})] == ["gpt2"]
    with pytest.raises(ConfigError, match=r"first was made with steps=4, .*longer with 6: a comparison needs the same"):
        read_specs([first, longer], None, None, {})
    with pytest.raises(ConfigError, match=r"steps=8 cannot be set: .*first is a finished run"):
        read_specs([first], None, None, {"steps": 8})
    with pytest.raises(ConfigError, match=r"tokenizer='byte' cannot be set"):
        read_specs([first], None, "byte", {})
    with pytest.raises(ConfigError, match=r"named twice"):
        read_specs([first, f"{first}/"], None, None, {})
    with pytest.raises(ConfigError, match=r"bigram is not a run, but .*first is"):
        are_runs([first, "bigram"])
    further = start_spec(None, Path(first), small_spec().data, {"steps": 4, "batch_size": 4, "eval_every": 4})
    train_run(further, tmp_path / "further")
    with pytest.raises(ConfigError, match=r"first was made with start='new weights', .*further with 'a trained model'"):
        read_specs([first, str(tmp_path / "further")], None, None, {})
    config = tmp_path / "first" / "config.toml"
    config.write_text(config.read_text().replace("steps = 4\n", "steps = 40\n", 1))
    with pytest.raises(ConfigError, match=r"first is at step 4 of 40: lmzoo train --resume .*first finishes it"):
        read_specs([first], None, None, {})
