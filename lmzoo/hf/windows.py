"""Keys of config.json for layers with a window, which several model types share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lmzoo.hf.architecture import Config, Settings, Together, layer_words, refused


def all_but_each(
    every: int, kinds: Mapping[str, str], key: str = "sliding_window_pattern", window: int = 4096
) -> Together:
    """Returns the keys by which all layers but each n-th have a window, unless `layer_types` names others.

    `every` is the default of n, which is the value of `key`, and `window` the default of the window; `kinds` has our
    words for `sliding_attention` and `full_attention`.
    """

    def settings(config: Config) -> dict[str, Any]:
        n = config.at_least(key, every)
        if config.get("layer_types") is not None:
            words = config.words("layer_types", kinds)
        else:
            layers = range(1, config.layers() + 1)
            words = [kinds["sliding_attention" if layer % n else "full_attention"] for layer in layers]
        if config.get("sliding_window", window) is None:
            raise refused("sliding_window", None, "must be a number")
        return {"pattern": " ".join(words), "window": config.value("sliding_window", window)}

    return Together(("layer_types", "sliding_window", key), settings, window_keys(kinds))


def windows(kinds: Mapping[str, str], window: int, usual: Callable[[int, int], bool]) -> Together:
    """Returns the keys of the window and of the layers that have it: in `layer_types`, or else by a rule.

    `window` is its default, and `usual(layer, n_layers)` the rule; `kinds` has our words for `sliding_attention` and
    `full_attention`.
    """

    def settings(config: Config) -> dict[str, Any]:
        n_layers, found = config.layers(), config.get("sliding_window", window)
        names = ["sliding_attention" if usual(layer, n_layers) else "full_attention" for layer in range(n_layers)]
        words = [kinds[name] for name in names]
        if config.get("layer_types") is not None:
            words = config.words("layer_types", kinds)
        if found is None and kinds["sliding_attention"] in words:
            raise refused("sliding_window", None, "must be a number: layer_types has sliding_attention")
        return {"window": found, "pattern": " ".join(words)}

    return Together(("sliding_window", "layer_types"), settings, window_keys(kinds))


def window_keys(kinds: Mapping[str, str]) -> Callable[[Settings], dict[str, Any]]:
    """Returns the function from the settings of a model to the window and the layers that have it."""
    return lambda ours: {"sliding_window": ours["window"], **layer_words("layer_types", ours["pattern"], kinds)}
