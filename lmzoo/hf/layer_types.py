"""The key of config.json with a word for each layer, of models whose layers differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lmzoo.hf.architecture import Config, Together, layer_words


def layer_types(
    known: Mapping[str, str],
    usual: Callable[[Config], Sequence[str]] | None = None,
    others: tuple[str, ...] = (),
    key: str = "layer_types",
) -> Together:
    """Returns the key for the setting `pattern`; `known` has our word for each of theirs.

    Without the key, `usual` returns our words, which may depend on the keys `others`. Without `usual`, the key must
    be given.
    """

    def settings(config: Config) -> dict[str, Any]:
        words = usual(config) if usual is not None and config.get(key) is None else config.words(key, known)
        return {"pattern": " ".join(words)}

    return Together((key, *others), settings, lambda ours: layer_words(key, ours["pattern"], known))


def words_of(pattern: Together, config: Config) -> list[str]:
    """Returns our word for each layer, for maps of weights that depend on it."""
    return pattern.settings(config)["pattern"].split()
