"""The description of an architecture of GGUF: when it fits a model, its keys, its tensors; and what several share."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lmzoo.gguf.layouts import Part, ToNeighbors
from lmzoo.hf.layouts import Either, Source
from lmzoo.layers.pattern import pattern

Settings = Mapping[str, Any]
Tensors = dict[str, Source]


# Settings that every form accounts for: by the shapes of its tensors, or by keys that depend on them.
ALWAYS_FREE = frozenset(
    {
        *("vocab_size", "context_length", "d_model", "n_layers", "n_heads", "n_kv_heads", "head_dim", "d_ff"),
        *("norm_eps", "tie_embeddings", "rope_scaling", "dropout", "balance_loss"),
    }
)


@dataclass(frozen=True)
class Form:
    """An architecture of GGUF, and the models of a family that it can hold."""

    arch: str
    family: str
    tensors: Tensors  # {i} stands for the layer on both sides; entries that a model does not have are left out
    keys: Mapping[str, Any]  # by their names without the architecture: a setting, a number, or a function of settings
    needs: Mapping[str, tuple[Any, ...]] = field(default_factory=dict[str, tuple[Any, ...]])  # values of settings
    rule: Callable[[Settings], str | None] | None = None  # returns what else does not fit, or None
    free: tuple[str, ...] = ()  # settings that `rule` reads, or that may have any value; all others have their default
    norm: str = "attention.layer_norm_rms_epsilon"
    rope: tuple[str, ...] = ()  # rules for longer texts that llama.cpp knows for this architecture
    output: bool = False  # has its own head even where it equals the token embedding


def no_windows(settings: Settings) -> str | None:
    """A rule: no layer has a window shorter than the context, because most graphs of llama.cpp have none."""
    window = settings.get("window")
    return f"window={window} must be None" if window is not None and window < settings["context_length"] else None


def kinds_of(settings: Settings, name: str = "pattern") -> list[str]:
    """Returns the word of each layer in a setting."""
    text = settings[name]
    return [*pattern(text, settings["n_layers"], re.findall(r"[^\s*]+", text))]


def equal_widths(settings: Settings) -> str | None:
    """A rule: the heads together are as wide as the features, as llama.cpp takes them to be in most graphs."""
    width, equal = settings["head_dim"], settings["d_model"] // settings["n_heads"]
    return None if width == equal else f"head_dim={width} must be {equal}"


def layers_are(*words: str, windowed: str = "") -> Callable[[Settings], str | None]:
    """Returns a rule: each layer is one of these words, and sees the whole text; `windowed` is one with the window."""

    def rule(settings: Settings) -> str | None:
        kinds = kinds_of(settings)
        if {*kinds} - {*words}:
            return f"pattern={settings['pattern']!r} must have only {' or '.join(words)}"
        return no_windows(settings) if windowed in kinds else None

    return rule


def all_layers(word: str) -> Callable[[Settings], str | None]:
    """Returns a rule: each layer is this word."""

    def rule(settings: Settings) -> str | None:
        return f"pattern={settings['pattern']!r} must be {word}" if {*kinds_of(settings)} != {word} else None

    return rule


def every_nth(count: int, usual: str, other: str) -> Callable[[Settings], str | None]:
    """Returns a rule: each `count`-th layer is `other`, and all the rest `usual`."""

    def rule(settings: Settings) -> str | None:
        kinds = kinds_of(settings)
        wanted = [usual if (layer + 1) % count else other for layer in range(len(kinds))]
        return None if kinds == wanted else f"pattern={settings['pattern']!r} must be {usual}*{count - 1} {other}"

    return rule


def all_of(*rules: Callable[[Settings], str | None]) -> Callable[[Settings], str | None]:
    """Returns a rule: all of these hold."""

    def rule(settings: Settings) -> str | None:
        return next((found for one in rules if (found := one(settings)) is not None), None)

    return rule


QKV = ("n_heads", "n_kv_heads", "n_kv_heads")
INNER = "blocks.{i}.0.inner."


def attention(inner: str = INNER, *, neighbors: bool = False) -> Tensors:
    """Returns the projections of attention; with `neighbors`, llama.cpp rotates pairs of neighboring features."""
    found: dict[str, Source] = {}
    for kind in ("weight", "bias"):
        for number, (name, heads) in enumerate((("q", "n_heads"), ("k", "n_kv_heads"), ("v", ""))):
            part = Part(f"{inner}qkv.{kind}", number, QKV)
            found[f"blk.{{i}}.attn_{name}.{kind}"] = ToNeighbors(part, heads) if neighbors and heads else part
        found[f"blk.{{i}}.attn_output.{kind}"] = f"{inner}out.{kind}"
    return found


def fused(inner: str = INNER) -> Tensors:
    """Returns the projections of attention where queries, keys and values are one tensor."""
    return {
        **{f"blk.{{i}}.attn_qkv.{kind}": f"{inner}qkv.{kind}" for kind in ("weight", "bias")},
        **{f"blk.{{i}}.attn_output.{kind}": f"{inner}out.{kind}" for kind in ("weight", "bias")},
    }


def norms(**places: str) -> Tensors:
    """Returns norms of a block by their names in GGUF."""
    return {
        f"blk.{{i}}.{n}.{k}": f"blocks.{{i}}.{place}.{k}" for n, place in places.items() for k in ("weight", "bias")
    }


def mlp(inner: str = "blocks.{i}.1.inner.", *, gated: bool) -> Tensors:
    """Returns the projections of a feed-forward layer."""
    found: dict[str, Source] = {}
    for kind in ("weight", "bias"):
        up = f"{inner}up.{kind}"
        found[f"blk.{{i}}.ffn_up.{kind}"] = Part(up, 1) if gated else up
        found |= {f"blk.{{i}}.ffn_gate.{kind}": Part(up, 0)} if gated else {}
        found[f"blk.{{i}}.ffn_down.{kind}"] = f"{inner}down.{kind}"
    return found


TIED_ENDS: Tensors = {
    "token_embd.weight": "tokens.weight",
    "output_norm.weight": "norm.weight",
    "output_norm.bias": "norm.bias",
}
ENDS: Tensors = {
    **TIED_ENDS,
    "output.weight": Either(("head.weight", "head.linear.weight", "head.inner.weight")),  # with a cap, or a factor
    "output.bias": "head.bias",
}
PRE = norms(attn_norm="0.before", ffn_norm="1.before")
HEAD_NORMS: Tensors = {f"blk.{{i}}.attn_{part}_norm.weight": f"{INNER}{part}_norm.weight" for part in ("q", "k")}
WIDE_NORMS: Tensors = {f"blk.{{i}}.attn_{part}_norm.weight": f"{INNER}{part}_norm.norm.weight" for part in ("q", "k")}
SIZES = {
    "vocab_size": "vocab_size",
    "context_length": "context_length",
    "embedding_length": "d_model",
    "block_count": "n_layers",
}
HEADS = {
    **SIZES,
    "feed_forward_length": "d_ff",
    "attention.head_count": "n_heads",
    "attention.head_count_kv": "n_kv_heads",
    "attention.key_length": "head_dim",
    "attention.value_length": "head_dim",
}
ROPE = {**HEADS, "rope.freq_base": "rope_theta", "rope.dimension_count": "rotary_dim"}
LAYER_NORM = "attention.layer_norm_epsilon"
