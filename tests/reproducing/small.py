"""A recipe that runs in seconds: a recurrence solves parity, a table of bigrams does not."""

from __future__ import annotations

import dataclasses

from lmzoo.reproducing.recipe import Recipe, Text, parse_recipe

TOML = """
paper = "nobody 2026"
claim = "A recurrence counts."
size = "one layer"
method = "one learning rate"
minutes = 1
learning_rates = [0.03]
seeds = 1

[settings]
steps = 60
batch_size = 64

[[tasks]]
name = "parity to 64"
probe = "parity"
trained = 16
tested = 64

[[models]]
name = "recurrence"
model = "gru"
settings = {d_model = 16, n_layers = 1}

[[models]]
name = "table"
model = "bigram"

[[claims]]
text = "the recurrence solves parity"
model = "recurrence"
task = "parity to 64"
low = 0.99

[[claims]]
text = "the table does not"
model = "table"
task = "parity to 64"
low = 0.4
high = 0.6
"""


def small(**changes: object) -> Recipe:
    return dataclasses.replace(parse_recipe("small", TOML), **changes)  # type: ignore[arg-type]


def text_of(data: str) -> Text:
    """A comparison of a few steps."""
    return Text(
        data=data,
        models=["gru", "lstm"],
        match="params=3k",
        budget="steps=4",
        seeds=2,
        settings={"batch_size": 2, "model.context_length": 16, "n_layers": 1},
    )
