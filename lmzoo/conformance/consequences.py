"""Finds the cause of several failures: a check may fail because another check fails, which it presumes.

One fault makes many checks fail. If a cache drops a token, `decoding` fails, and so does every other check that decodes
and compares the result with `forward`. The hints of these checks name their own subject (rows, saving, bfloat16), which
is the wrong place to look at. So a report names the first cause, and shows the others as possible consequences.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

_RUNS = ("finals", "shapes")
_REPEATS = (*_RUNS, "parameters", "same_seed", "global_state")  # the same input gives the same logits
_ROWS = (*_REPEATS, "batch_independence")
_CAUSAL = (*_ROWS, "causality", "gradient_causality", "long_causality")
_DECODES = (*_CAUSAL, "state_dtype", "decoding", "long_decoding")
_LEARNS = (*_REPEATS, "changed_weights", "float64_gradients", "gradients")

# For each check the names of those that it presumes, the most basic one first. Results are announced after theirs.
PRESUMED: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("edges", "parameters", "flops", "state_bytes", "declared_growth"), _RUNS),
    **dict.fromkeys(
        ("same_seed", "global_state", "batch_independence", "train_mode", "loss_value", "initial_loss"), _REPEATS
    ),
    **dict.fromkeys(("causality", "gradient_causality", "bfloat16_causality", "long_causality"), _CAUSAL),
    **dict.fromkeys(("own_causality", "receptive_field"), _CAUSAL),
    "own_receptive_field": (*_CAUSAL, "receptive_field"),
    **dict.fromkeys(("decoding", "random_shapes", "long_decoding", "own_decoding", "max_len", "generation"), _DECODES),
    **dict.fromkeys(("state_is_a_value", "decoding_copies", "prompt_lengths"), _DECODES),
    **dict.fromkeys(("state_rows", "state_saved"), (*_ROWS, "state_is_a_value")),
    **dict.fromkeys(("ignored_targets", "micro_batches", "chunked_loss"), (*_ROWS, "gradient_causality", "loss_value")),
    "auxiliary": (*_REPEATS, "loss_value"),
    "float64_gradients": (*_REPEATS, "changed_weights"),
    "gradients": (*_LEARNS, "roles"),
    "long_gradients": (*_CAUSAL, "receptive_field", *_LEARNS),
    "overfitting": (*_ROWS, *_LEARNS, "long_gradients"),
    **dict.fromkeys(("bfloat16", "long_precision"), (*_DECODES, "bfloat16")),
    "other_models": (*_DECODES, "train_mode"),
    "changed_weights": (*_DECODES, "save_and_load"),
    "roles": _RUNS,
    "offers": _CAUSAL,
    "transferable": (*_CAUSAL, "offers"),
    "settings": ("train_mode", "other_models"),
    **dict.fromkeys(("compiles", "save_and_load"), _REPEATS),
    "tied_weights": (*_REPEATS, "initialization"),
    "meta_device": (*_REPEATS, "initialization", "tied_weights"),
}


def cause_of(name: str, failed: Collection[str]) -> str:
    """Returns the most basic check in `failed` whose fault may also make the check `name` fail, or ''."""
    return next((other for other in PRESUMED.get(name, ()) if other in failed and other != name), "")
