"""Patterns: a short text that names the kind of layer at each depth."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from lmzoo.errors import ConfigError

MOST = 1 << 16  # maximum of words and of layers: more than any depth, and little memory


def whole(word: str) -> Sequence[str]:
    """Default for `parts` of `pattern`: a word has no parts."""
    return [word]


def pattern(
    text: str,
    n_layers: int,
    known: Iterable[str],
    parts: Callable[[str], Sequence[str]] = whole,
    *,
    name: str = "pattern",
) -> list[str]:
    """Returns one of the `known` words for each of `n_layers` layers, from a text such as `"mamba*3 attention"`.

    The pattern is repeated over the depth. With `parts` a word may be put together: all of its parts must be known.
    Raises `ConfigError`, which calls the text `name`, for an unknown word and for an empty text.
    """
    known = list(known)
    if n_layers > MOST:
        raise ConfigError(f"n_layers={n_layers} must be at most {MOST}")
    words: list[str] = []
    for part in text.split():
        word, star, times = part.partition("*")
        count = int(times) if times.isascii() and times.isdigit() and len(times) < 6 else 0
        if not {*parts(word)} <= {*known} or (star and not 0 < count <= MOST):
            raise ConfigError(f"{name}={text!r}: {part!r} must be one of {', '.join(known)}, or WORD*N to repeat it")
        words += [word] * (count if star else 1)
        if len(words) > MOST:
            raise ConfigError(f"{name}={text!r} names more than {MOST} layers")
    if not words:
        raise ConfigError(f"{name}={text!r} must name at least one of {', '.join(known)}")
    return [words[layer % len(words)] for layer in range(n_layers)]
