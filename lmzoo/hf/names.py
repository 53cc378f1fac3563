"""Names of weights that many mappings share, as pieces of a map (`lmzoo.hf.weights`).

`ours` is the beginning of names in lmzoo, `theirs` or `module` of those in the checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from lmzoo.hf.layouts import Either, InLayer, Rows, Source, Stacked, gate_and_up
from lmzoo.hf.weights import Head, Weights

Entry = TypeVar("Entry")
GATE_UP_DOWN = ("gate_proj", "up_proj", "down_proj")
W1_W3_W2 = ("w1", "w3", "w2")


def frame(tokens: str, norm: str, head: str = "head") -> Weights:
    """Returns the names around the blocks: token embedding, final norm, and the head, which may be tied."""
    return {
        "tokens.weight": f"{tokens}.weight",
        "norm.weight": f"{norm}.weight",
        f"{head}.weight": Head("lm_head.weight", tokens=f"{tokens}.weight"),
    }


def as_stored(name: str) -> Source:
    """Returns the layout of a tensor that both have alike."""
    return name


def both(ours: str, theirs: str, layout: Callable[[str], Source] = as_stored) -> dict[str, Source]:
    """Returns the names of a weight and a bias, which have this layout."""
    return {f"{ours}.{kind}": layout(f"{theirs}.{kind}") for kind in ("weight", "bias")}


def halves(name: str, _heads: str) -> Source:
    """Returns the layout of rotary pairs that are halves of a head, as in lmzoo."""
    return name


def qkv(
    module: str, rotated: Callable[[str, str], Source] = halves, ours: str = "blocks.{i}.0.inner."
) -> dict[str, Source]:
    """Returns the projections of queries, keys and values; `rotated` makes the layout of the first two."""
    return {
        f"{ours}qkv.{kind}": Rows(
            (
                rotated(f"{module}q_proj.{kind}", "n_heads"),
                rotated(f"{module}k_proj.{kind}", "n_kv_heads"),
                f"{module}v_proj.{kind}",
            ),
            ("n_heads", "n_kv_heads", "n_kv_heads"),
        )
        for kind in ("weight", "bias")
    }


def full_qkv(ours: str, module: str) -> dict[str, Source]:
    """Returns the projections of queries, keys and values, where each head has keys and values of its own."""
    return {
        f"{ours}qkv.{kind}": Rows(tuple(f"{module}{part}_proj.{kind}" for part in "qkv")) for kind in ("weight", "bias")
    }


def gated(ours: str, module: str) -> dict[str, Source]:
    """Returns the names of a gated feed-forward layer without biases."""
    return {f"{ours}up.weight": gate_and_up(module), f"{ours}down.weight": f"{module}down_proj.weight"}


def stacked(each: Source, fused: str) -> Either:
    """Returns the layout of a tensor of all experts, which files hold as one, or as one for each, with `{e}`."""
    return Either((Stacked(each, "n_experts"), fused))


def experts(module: str, parts: tuple[str, str, str] = GATE_UP_DOWN, each: str | None = None) -> dict[str, Source]:
    """Returns the names of gated experts: in one tensor for all in `module`, or one for each, as in older files.

    `parts` are the names of gate, up and down projection of one expert, in `each`, by default in `module`.
    """
    gate, up, down = (f"{each or module}{{e}}.{part}.weight" for part in parts)
    return {
        "blocks.{i}.1.inner.up": stacked(Rows((gate, up)), f"{module}gate_up_proj"),
        "blocks.{i}.1.inner.down": stacked(down, f"{module}down_proj"),
    }


def by_layer(words: Sequence[str], parts: Mapping[str, Mapping[str, Source]], ours: str) -> dict[str, Source]:
    """Returns the names of parts that depend on the word of a layer, where one name of ours has several sources."""
    return {
        f"{ours.format(i=layer)}{name}": InLayer(source, layer)
        for layer, word in enumerate(words)
        for name, source in parts[word].items()
    }


def within(weights: Mapping[str, Entry], part: str) -> dict[str, Entry]:
    """Returns the entries of a map whose names in lmzoo have this part."""
    return {name: entry for name, entry in weights.items() if part in name}


def outside(weights: Mapping[str, Entry], part: str) -> dict[str, Entry]:
    """Returns the entries of a map whose names in lmzoo do not have this part."""
    return {name: entry for name, entry in weights.items() if part not in name}
