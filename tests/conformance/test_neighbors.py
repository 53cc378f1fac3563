"""Configs near a given one."""

from __future__ import annotations

from lmzoo.conformance import subject
from lmzoo.conformance.neighbors import neighbors, resized


def test_neighbors_keeps_fields_and_leaves_out_what_the_config_refuses() -> None:
    config = subject("gpt2").config
    found = neighbors(config, {"vocab_size", "n_layers"})
    assert not {"vocab_size", "n_layers"} & {name for name, _ in found}
    assert [other.n_heads for name, other in found if name == "n_heads"] == [8, 2, 1]  # type: ignore[attr-defined]


def test_resized_gives_two_other_sizes() -> None:
    checked = subject("llama")
    changes = resized(checked.config)
    assert len(changes) == 2
    assert changes[0] == {"d_model": 64}
    counts = {checked.model(**change).num_params() for change in [{}, *changes]}
    assert len(counts) == 3
    assert resized(subject("bigram").config) == [{"vocab_size": 26}, {"context_length": 48}]
