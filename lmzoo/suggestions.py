"""Suggests a known name for one that is unknown: names of other libraries first, then similarly spelled names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

_SIMILAR = 0.5  # smallest ratio of difflib at which a name counts as a misspelling of another

# Names of the same thing in other libraries and papers. A name stands for the first of its candidates that is known.
ALIASES: Mapping[str, tuple[str, ...]] = {
    # settings of models
    "n_embd": ("d_model",),
    "n_embed": ("d_model",),
    "embed_dim": ("d_model",),
    "hidden_size": ("d_model",),
    "hidden_dim": ("d_model",),
    "width": ("d_model",),
    "dim": ("d_model",),
    "n_head": ("n_heads",),
    "num_heads": ("n_heads",),
    "num_attention_heads": ("n_heads",),
    "num_key_value_heads": ("n_kv_heads",),
    "n_layer": ("n_layers",),
    "num_layers": ("n_layers",),
    "num_hidden_layers": ("n_layers",),
    "depth": ("n_layers",),
    "block_size": ("context_length",),
    "seq_len": ("context_length",),
    "max_seq_len": ("context_length",),
    "n_positions": ("context_length",),
    "max_position_embeddings": ("context_length",),
    "intermediate_size": ("d_ff",),
    "ffn_dim": ("d_ff",),
    "sliding_window": ("window",),
    "num_experts": ("n_experts",),
    "num_local_experts": ("n_experts",),
    "tie_word_embeddings": ("tie_embeddings",),
    # settings of the training
    "lr": ("learning_rate",),
    "max_lr": ("learning_rate",),
    "min_lr": ("min_learning_rate",),
    "wd": ("weight_decay",),
    "warmup": ("warmup_steps",),
    "warmup_iters": ("warmup_steps",),
    "iters": ("steps",),
    "max_iters": ("steps",),
    "max_steps": ("steps",),
    "iterations": ("steps",),
    "bs": ("batch_size",),
    "gradient_accumulation_steps": ("grad_accumulation",),
    "accumulation": ("grad_accumulation",),
    "max_grad_norm": ("grad_clip",),
    "clip": ("grad_clip",),
    "optim": ("optimizer",),
    "lr_scheduler": ("schedule",),
    "dtype": ("precision",),
    # options of generation
    "max_tokens": ("max_new_tokens",),
    "temp": ("temperature",),
    # families
    "transformer": ("gpt2", "llama"),
    "gpt": ("gpt2",),
    "nanogpt": ("gpt2",),
    "pythia": ("gpt_neox",),
    "neox": ("gpt_neox",),
    "ssm": ("mamba",),
    "s6": ("mamba",),
    "moe": ("mixtral",),
    "mistral": ("llama", "mixtral"),
    "jamba": ("hybrid",),
    "delta": ("deltanet",),
    "n-gram": ("ngram",),
    "path": ("path_attention",),
    "s4": ("s4d",),
    "s5": ("s4d",),
    "h-net": ("hnet",),
    "dsa": ("sparse",),
    "nsa": ("sparse",),
}


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Returns the known name that `name` most likely means: by `ALIASES`, else the one spelled most similarly."""
    names = sorted(known)
    low = name.lower()
    for meant in (low, *ALIASES.get(low, ())):
        if meant in names:
            return meant
    return next(iter(difflib.get_close_matches(low, names, n=1, cutoff=_SIMILAR)), None)


def suggest(name: str, known: Iterable[str]) -> str:
    """Returns "; did you mean 'x'?" for the nearest known name, else a list of the known names, if there are any."""
    names = sorted(known)
    near = nearest(name, names) if isinstance(name, str) else None  # callers report a value of any kind
    if near is not None:
        return f"; did you mean {near!r}?"
    return f"; known: {', '.join(names)}" if names else ""


def suggest_model(name: str, models: Iterable[str]) -> str:
    """Returns a suggestion for the name of a model, as `suggest` does: the family decides, not the preset.

    `models` are the known families and presets. The preset of `name` is kept if the suggested family has it.
    """
    names = set(models)
    family, dot, preset = name.partition(".")
    families = [model for model in names if "." not in model]
    near = nearest(family, families)
    if near is None:
        return suggest(family, families)
    whole = f"{near}.{preset}"
    meant = whole if dot and whole in names else near
    return f"; did you mean {meant!r}?"
