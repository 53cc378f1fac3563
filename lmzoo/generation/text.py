"""Text in, text out: the sampler loop between a tokenizer's two ends, with stop strings.

The pieces that come out never break a character, never hold a part of a stop string, and put together are the text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from lmzoo.errors import InputError
from lmzoo.generation.drafts import Draft
from lmzoo.generation.loop import stream
from lmzoo.generation.speculative import stream_speculative
from lmzoo.model import LanguageModel
from lmzoo.sampling import SamplingConfig


class TextStream(Protocol):
    """Turns tokens into whole characters, one token at a time."""

    def feed(self, token: int, /) -> str:
        """The characters that this token completes."""

    def finish(self) -> str:
        """What is left when no more tokens come."""


class TextTokenizer(Protocol):
    """What is needed of a tokenizer here; those of `lmzoo.data.tokenizers` have it."""

    vocab_size: int

    def encode(self, text: str, /) -> list[int]:
        """Text to token ids."""

    def stream(self) -> TextStream:
        """A fresh stream from tokens to text."""


class StopMatcher:
    """Finds the first of some strings to be completed in a text that comes in pieces, cut anywhere.

    `feed` returns the text that is decided: what comes before a stop string, without what may still become one. Once
    `found`, it returns nothing more. When several strings end at one character, the longest counts.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self.found = False
        self._stops = tuple(stops)
        self._held = ""

    def feed(self, piece: str) -> str:
        """The text that is decided now that `piece` has come."""
        if self.found:
            return ""
        text = self._held + piece
        starts = [(text.find(stop), stop) for stop in self._stops]
        ends = [(start + len(stop), start) for start, stop in starts if start >= 0]
        if ends:
            self.found, self._held = True, ""
            return text[: min(ends)[1]]
        held = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]

    def finish(self) -> str:
        """What was held back and, as nothing follows, is no stop string."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """The length of the longest end of `text` that `stop` begins with, `stop` itself not being one."""
    return next(size for size in range(min(len(text), len(stop) - 1), -1, -1) if text.endswith(stop[:size]))


class _Reader:
    """Tokens to decided text, up to a stop token or a stop string; `done` once there was one."""

    def __init__(self, decoder: TextStream, stops: Sequence[str], stop_tokens: Sequence[int]) -> None:
        self.done = False
        self._decoder, self._matcher, self._stop_tokens = decoder, StopMatcher(stops), frozenset(stop_tokens)

    def feed(self, token: int) -> str:
        if token in self._stop_tokens:
            self.done = True
            return ""
        piece = self._matcher.feed(self._decoder.feed(token))
        self.done = self._matcher.found
        return piece

    def finish(self) -> str:
        return self._matcher.feed(self._decoder.finish()) + self._matcher.finish()


def generate_text(
    model: LanguageModel,
    tokenizer: TextTokenizer,
    prompt: str,
    max_new_tokens: int,
    config: SamplingConfig | None = None,
    *,
    stop: Sequence[str] = (),
    stop_tokens: Sequence[int] = (),
    draft: Draft | None = None,
    generator: torch.Generator | None = None,
) -> Iterator[str]:
    """Continue the text `prompt`: yields pieces of new text (no empty ones) as they are decided, the prompt left out.

    Ends after `max_new_tokens` tokens, or before the first of the strings `stop` (one string or several), or with one
    of `stop_tokens`, whose text is left out too. With a `draft`, tokens are guessed ahead (`stream_speculative`).

    Raises at once: `InputError` for an empty prompt, an empty stop string, or a model whose ids the tokenizer does not
    have; `DataError` for a prompt it cannot encode.
    """
    idx, stops = _checked(model, tokenizer, prompt, stop)
    reader = _Reader(tokenizer.stream(), stops, stop_tokens)
    if draft is None:
        steps = stream(model, idx, max_new_tokens, config, stop_tokens=stop_tokens, generator=generator)
        return _pieces((int(token_B) for token_B in steps), reader)
    blocks = stream_speculative(model, draft, idx, max_new_tokens, config, stop_tokens=stop_tokens, generator=generator)
    return _pieces((token for block_BN in blocks for token in block_BN[0].tolist()), reader)


def generate_texts(
    model: LanguageModel,
    tokenizer: TextTokenizer,
    prompt: str,
    n_samples: int,
    max_new_tokens: int,
    config: SamplingConfig | None = None,
    *,
    stop: Sequence[str] = (),
    stop_tokens: Sequence[int] = (),
    generator: torch.Generator | None = None,
) -> list[str]:
    """`n_samples` continuations of one prompt, which is read once. Arguments and errors as in `generate_text`."""
    idx, stops = _checked(model, tokenizer, prompt, stop)
    steps = stream(
        model, idx, max_new_tokens, config, n_samples=n_samples, stop_tokens=stop_tokens, generator=generator
    )
    readers = [_Reader(tokenizer.stream(), stops, stop_tokens) for _ in range(n_samples)]
    texts = [""] * n_samples
    for token_B in steps:
        for row, token in enumerate(token_B.tolist()):
            texts[row] += readers[row].feed(token)
        if all(reader.done for reader in readers):
            break
    return [text + reader.finish() for text, reader in zip(texts, readers, strict=True)]


def _checked(
    model: LanguageModel, tokenizer: TextTokenizer, prompt: str, stop: Sequence[str]
) -> tuple[Tensor, tuple[str, ...]]:
    """The prompt's tokens (1, T), and the strings to stop at."""
    stops = (stop,) if isinstance(stop, str) else tuple(stop)
    if "" in stops:
        raise InputError("stop holds an empty string: it must be text to stop at")
    if not prompt:
        raise InputError("the prompt is empty: give at least one character to continue from")
    if model.config.vocab_size > tokenizer.vocab_size:
        raise InputError(
            f"the model has vocab_size={model.config.vocab_size}, the tokenizer only {tokenizer.vocab_size}: "
            "they do not belong together"
        )
    return torch.tensor([tokenizer.encode(prompt)], dtype=torch.long), stops


def _pieces(tokens: Iterator[int], reader: _Reader) -> Iterator[str]:
    for token in tokens:
        if piece := reader.feed(token):
            yield piece
        if reader.done:
            break
    if piece := reader.finish():
        yield piece
