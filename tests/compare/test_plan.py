"""Tests the plan of a comparison: one budget for all models, and each setting for the models that have it."""

from __future__ import annotations

from lmzoo.compare.plan import cut_contexts, make_specs
from lmzoo.runs.spec import make_spec


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
