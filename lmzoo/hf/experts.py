"""Keys of config.json for layers with experts: groups of experts, the first layers without, experts for every token."""

from __future__ import annotations

from typing import Any

from lmzoo.hf.architecture import Config, Settings, Together, keys_from, refused

MTP_LAYER = ("model.layers.{n_layers}.*",)  # for multi-token prediction: files hold it behind the last layer


def groups(
    n_group: int,
    topk_group: int,
    top_k: int,
    keys: tuple[str, str, str] = ("n_group", "topk_group", "num_experts_per_tok"),
    settings: tuple[str, str, str] = ("n_groups", "top_groups", "top_k"),
) -> Together:
    """Returns the keys for the groups of experts, how many of them are chosen, and how many experts.

    The numbers are defaults. In transformers, the score of a group is the sum of its two largest affinities, whatever
    the other numbers are.
    """

    def read(config: Config) -> dict[str, int]:
        defaults = zip(keys, (n_group, topk_group, top_k), strict=True)
        total, chosen, best = (config.value(key, default) for key, default in defaults)
        found = dict(zip(settings, (total, chosen, best), strict=True))
        return found if total == chosen else {**found, "group_best": 2}

    return Together(keys, read, keys_from(dict(zip(keys, settings, strict=True))))


def shared_width(key: str, shared: int, one: int) -> Together:
    """Returns the key for the width of the experts that read every token, together; the widths are defaults."""

    def settings(config: Config) -> dict[str, Any]:
        width, expert = config.value(key, shared), config.value("moe_intermediate_size", one)
        if width < 1 or expert < 1 or width % expert:
            raise refused(key, width, f"must be a multiple of moe_intermediate_size={expert}")
        return {"n_shared": width // expert}

    return Together((key,), settings, lambda ours: {key: ours["n_shared"] * ours["d_expert"]})


def _dense_first(config: Config) -> dict[str, Any]:
    """Returns the number of first layers without experts."""
    n_layers, first = config.layers(), config.value("first_k_dense_replace", 1)
    kinds = config.get("mlp_layer_types")
    if kinds is None:
        return {"n_dense": min(max(0, first), n_layers)}
    words = config.words("mlp_layer_types", {"dense": "dense", "sparse": "sparse"})
    first = words.count("dense")
    if words != ["dense"] * first + ["sparse"] * (n_layers - first):
        raise refused("mlp_layer_types", kinds, "must have all dense layers before the sparse ones")
    return {"n_dense": first}


def _dense_first_keys(ours: Settings) -> dict[str, Any]:
    dense = min(ours["n_dense"], ours["n_layers"])
    return {"mlp_layer_types": ["dense"] * dense + ["sparse"] * (ours["n_layers"] - dense)}


DENSE_FIRST = Together(("mlp_layer_types", "first_k_dense_replace"), _dense_first, _dense_first_keys)


def _first_one_dense(config: Config) -> dict[str, Any]:
    """Returns the number of first layers without experts, one if only `first_k_dense_replace` names another."""
    return _dense_first(Config({**config, "first_k_dense_replace": 1}))


FIRST_ONE_DENSE = Together(("mlp_layer_types",), _first_one_dense, _dense_first_keys)
