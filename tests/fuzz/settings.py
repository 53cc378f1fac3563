"""Cases of settings: configs of models and of the training, from dicts, TOML and `--set`."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from typing import Any

import lmzoo
from lmzoo import configs, registry
from lmzoo.runs.spec import make_spec
from lmzoo.train.config import TrainConfig
from tests.fuzz import values
from tests.fuzz.watch import Case, Place

FAMILIES = sorted(registry.families())


def case(draw: random.Random, place: Place) -> Case:
    """Draws one of the ways to give settings."""
    family = draw.choice(FAMILIES)
    name = f"{family}.tiny" if f"{family}.tiny" in registry.list_models(f"{family}.*") else family
    fields = list(configs.to_dict(registry.model_config(name, vocab_size=65)))
    drawn: dict[str, Any] = {draw.choice(fields): values.anything(draw) for _ in range(draw.choice((1, 1, 2)))}
    if draw.random() < 0.1:
        drawn[values.text(draw)] = values.anything(draw)
    training: dict[str, Any] = {
        draw.choice(list(configs.to_dict(TrainConfig()))): values.anything(draw) for _ in range(draw.choice((1, 2)))
    }
    assignments = [f"{draw.choice((*fields, 'steps', 'x', ''))}={values.toml(draw)}" for _ in range(2)]
    content = values.damaged(draw, configs.dump_toml({"model": {"d_model": 8}, "train": {"steps": 2}}).encode())

    def read_file() -> object:
        path = place.work / "settings.toml"
        path.write_bytes(content)
        try:
            return configs.load_toml(path)
        finally:
            os.unlink(path)

    vocab_size = {} if "vocab_size" in drawn else {"vocab_size": 65}
    ways: dict[str, Callable[[], object]] = {
        f"create_model({name!r}, **{drawn!r})": lambda: _use(lmzoo.create_model(name, **vocab_size, **drawn)),
        f"create_model({name!r}, device='meta', **{drawn!r})": lambda: lmzoo.create_model(
            name, device="meta", **vocab_size, **drawn
        ),
        f"TrainConfig by build({training!r})": lambda: configs.build(TrainConfig, training).resolved(),
        f"TrainConfig(**{training!r})": lambda: TrainConfig(**training).resolved(),
        f"make_spec({name!r}, 'pydocs', {assignments!r})": lambda: make_spec(
            name, "pydocs", overrides=configs.parse_overrides(assignments)
        ),
        f"make_spec({name!r}, 'pydocs', {training!r})": lambda: make_spec(name, "pydocs", overrides=training),
        f"load_toml({content[:200]!r})": read_file,
        f"dump_toml({training!r})": lambda: configs.dump_toml(
            {"a": configs.to_table(TrainConfig()) | _filled(training)}
        ),
    }
    what = draw.choice(list(ways))
    return Case(what, ways[what])


def _use(model: lmzoo.LanguageModel) -> object:
    """A model that can be made can be counted."""
    return model.num_params(), model.state_bytes(4)


def _filled(table: dict[str, Any]) -> dict[str, Any]:
    """Returns a table without None, which `dump_toml` treats as a mistake of its caller."""
    return {key: "none" if value is None else value for key, value in table.items()}
