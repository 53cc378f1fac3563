"""Text generation: encodes a prompt, samples tokens, decodes them, and ends at stop strings.

The generated text is yielded in pieces. A piece holds whole characters and no part of a stop string.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lmzoo import arguments
from lmzoo.errors import DataError, InputError
from lmzoo.generation.drafts import Draft
from lmzoo.generation.loop import make_ragged_job, steps, stream
from lmzoo.generation.speculative import stream_speculative
from lmzoo.model import LanguageModel, require_model
from lmzoo.sampling import SamplingConfig

if TYPE_CHECKING:
    from lmzoo.data.tokenizers import StreamDecoder, Tokenizer


class StopMatcher:
    """Finds the first stop string in a text that arrives in pieces, cut anywhere.

    `feed` returns the text before a stop string and holds back an end that may be the start of one. Once `found`, it
    returns nothing more. When several stop strings end at the same character, the longest one counts.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self.found = False
        self._stops = tuple(stops)
        self._held = ""

    def feed(self, piece: str) -> str:
        """Add `piece`; returns the text that can no longer be part of a stop string."""
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
        """Returns the text held back, when no more text follows."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """The length of the longest suffix of `text` that is a prefix of `stop`, shorter than `stop`."""
    return next(size for size in range(min(len(text), len(stop) - 1), -1, -1) if text.endswith(stop[:size]))


class _Reader:
    """Decodes tokens to text up to a stop token or a stop string; then `done` is True."""

    def __init__(self, decoder: StreamDecoder, stops: Sequence[str], stop_tokens: Sequence[int]) -> None:
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
    tokenizer: Tokenizer,
    prompt: str | Sequence[int],
    max_new_tokens: int,
    config: SamplingConfig | None = None,
    *,
    stop: Sequence[str] = (),
    stop_tokens: Sequence[int] = (),
    draft: Draft | None = None,
    generator: torch.Generator | None = None,
) -> Iterator[str]:
    """Continue the text `prompt`, or its token ids; yields non-empty pieces of new text, without the prompt.

    Ends after `max_new_tokens` tokens, before the first stop string (`stop`: one or several), or at one of
    `stop_tokens`, whose text is left out. With a `draft`, decoding is speculative (`stream_speculative`).

    Raises immediately, not at the first piece: `InputError` for an empty prompt, an empty stop string, or a model with
    more token ids than the tokenizer; `DataError` for a prompt that the tokenizer cannot encode.
    """
    idx, stops = _checked(model, tokenizer, prompt, stop)
    stop_tokens = arguments.ids("stop_tokens", stop_tokens, model.config.vocab_size)
    reader = _Reader(tokenizer.stream(idx[0].tolist()), stops, stop_tokens)
    if draft is None:
        steps = stream(model, idx, max_new_tokens, config, stop_tokens=stop_tokens, generator=generator)
        return _pieces((int(token_B) for token_B in steps), reader)
    blocks = stream_speculative(model, draft, idx, max_new_tokens, config, stop_tokens=stop_tokens, generator=generator)
    return _pieces((token for block_BN in blocks for token in block_BN[0].tolist()), reader)


def generate_texts(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompt: str | Sequence[int],
    n_samples: int,
    max_new_tokens: int,
    config: SamplingConfig | None = None,
    *,
    stop: Sequence[str] = (),
    stop_tokens: Sequence[int] = (),
    generator: torch.Generator | None = None,
) -> list[str]:
    """Return `n_samples` continuations of one prompt, with one prefill. Arguments and errors as in `generate_text`."""
    idx, stops = _checked(model, tokenizer, prompt, stop)
    stop_tokens = arguments.ids("stop_tokens", stop_tokens, model.config.vocab_size)
    n_samples = arguments.count("n_samples", n_samples, least=1)
    steps = stream(
        model, idx, max_new_tokens, config, n_samples=n_samples, stop_tokens=stop_tokens, generator=generator
    )
    readers = [_Reader(tokenizer.stream(idx[0].tolist()), stops, stop_tokens) for _ in range(n_samples)]
    texts = [""] * n_samples
    for token_B in steps:
        for row, token in enumerate(token_B.tolist()):
            texts[row] += readers[row].feed(token)
        if all(reader.done for reader in readers):
            break
    return [text + reader.finish() for text, reader in zip(texts, readers, strict=True)]


def continue_texts(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    config: SamplingConfig | None = None,
    *,
    stop: Sequence[str] = (),
    stop_tokens: Sequence[int] = (),
    generator: torch.Generator | None = None,
) -> list[str]:
    """Return the continuation of each prompt, a sequence of token ids; the prompts may have different lengths.

    A text ends after `max_new_tokens` tokens, before the first stop string or stop token. Special tokens are left out
    of it; a stop string may name one. The loop ends with the last text.
    """
    job = make_ragged_job(model, prompts, max_new_tokens, config, stop_tokens=stop_tokens, generator=generator)
    readers = [_Reader(tokenizer.stream(), stop, stop_tokens) for _ in prompts]
    written: list[list[int]] = [[] for _ in prompts]
    for step in steps(model, job):
        for row, (token, drawn) in enumerate(zip(step.tokens.tolist(), step.drawn.tolist(), strict=True)):
            if drawn and not readers[row].done:
                readers[row].feed(token)
                written[row].append(token)
        if all(reader.done for reader in readers):
            break
    left_out = tokenizer.special_tokens.union(stop_tokens)
    texts = (tokenizer.decode([token for token in ids if token not in left_out]) for ids in written)
    return [_before(text, stop) for text in texts]


def _before(text: str, stops: Sequence[str]) -> str:
    """Returns the text before the first stop string."""
    matcher = StopMatcher(stops)
    return matcher.feed(text) + matcher.finish()


def default_prompt(tokenizer: Tokenizer) -> str:
    """Returns a prompt that the tokenizer can encode: a line break, else a space, else its first token."""
    for text in ("\n", " "):
        with suppress(DataError):
            tokenizer.encode(text)
            return text
    return tokenizer.decode([0])


def _checked(
    model: LanguageModel, tokenizer: Tokenizer, prompt: str | Sequence[int], stop: Sequence[str]
) -> tuple[Tensor, tuple[str, ...]]:
    """Check the arguments; returns the tokens of the prompt (1, T) and the stop strings."""
    if not isinstance(prompt, (str, list, tuple)):
        raise InputError(f"prompt={prompt!r} must be a text, or a list of token ids")
    if not arguments.is_sequence(stop) or not all(isinstance(each, str) for each in stop):
        raise InputError(f"stop={stop!r} must be a text or a sequence of texts")
    stops = (stop,) if isinstance(stop, str) else tuple(stop)
    if "" in stops:
        raise InputError("stop holds an empty string: it must be text to stop at")
    if not prompt:
        raise InputError("the prompt is empty: give at least one character to continue from")
    require_model("model", model)
    if not isinstance(getattr(tokenizer, "vocab_size", None), int):
        raise InputError(f"tokenizer={tokenizer!r} must be a tokenizer, such as lmzoo.load_tokenizer(path) returns")
    if model.config.vocab_size > tokenizer.vocab_size:
        raise InputError(
            f"the model has vocab_size={model.config.vocab_size}, the tokenizer only {tokenizer.vocab_size}: "
            "they do not belong together"
        )
    ids = tokenizer.encode(prompt) if isinstance(prompt, str) else [*prompt]
    if not all(type(token) is int for token in ids):
        raise InputError(f"prompt={prompt!r} must hold token ids")
    return torch.tensor([ids], dtype=torch.long), stops


def _pieces(tokens: Iterator[int], reader: _Reader) -> Iterator[str]:
    for token in tokens:
        if piece := reader.feed(token):
            yield piece
        if reader.done:
            break
    if piece := reader.finish():
        yield piece
