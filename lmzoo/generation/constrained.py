"""Only text of a given form: a regular expression or a JSON schema, as a processor of the sampler.

Which tokens may come next is worked out by llguidance (the extra `constrained`). A processor looks at tokens alone, so
it works with every model; JSON comes in one line. Legend: B rows, T tokens so far, V vocabulary.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from lmzoo.errors import ConfigError, InputError


class BytesTokenizer(Protocol):
    """What is needed of a tokenizer here; those of `lmzoo.data.tokenizers` have it."""

    vocab_size: int

    def encode(self, text: str, /) -> list[int]:
        """Text to token ids."""

    def token_bytes(self, token: int, /) -> bytes:
        """The bytes that a token stands for."""


class Constraint:
    """A processor that leaves only tokens with which the new text can still become one of the wanted form.

    `end_token` ends a text: it is possible where the text is complete, and the only one after that. Give it as a stop
    token too, and choose one that the form has no use for (a line break, as a rule). `prompt_lengths` says where the
    new text begins: one number for all rows, or one for each.

    Raises `ConfigError` unless there is one of `regex` and `json_schema`, and when llguidance is missing or cannot read
    it; on use, `InputError` when the tokenizer has no token to go on with.
    """

    def __init__(
        self,
        tokenizer: BytesTokenizer,
        prompt_lengths: int | Sequence[int],
        *,
        end_token: int,
        regex: str | None = None,
        json_schema: str | Mapping[str, Any] | None = None,
    ) -> None:
        if (regex is None) == (json_schema is None):
            raise ConfigError("a constraint needs one of regex and json_schema")
        if not 0 <= end_token < tokenizer.vocab_size:
            raise ConfigError(f"end_token={end_token} must be in [0, vocab_size={tokenizer.vocab_size})")
        self._prompt_lengths, self._end_token, self._vocab_size = prompt_lengths, end_token, tokenizer.vocab_size
        self._start = _matcher(tokenizer, regex, json_schema)
        self._rows: dict[int, tuple[list[int], Any]] = {}  # what each row's matcher has read: a cache, no more

    def __call__(self, logits_BV: Tensor, history_BT: Tensor) -> Tensor:
        """Logits (B, V) with -inf for every token that is not possible after the tokens (B, T)."""
        allowed_BV = torch.zeros(logits_BV.shape, dtype=torch.bool)
        for row, tokens in enumerate(history_BT.tolist()):
            lengths = self._prompt_lengths
            new = tokens[lengths if isinstance(lengths, int) else lengths[row] :]
            allowed_BV[row, self._allowed(row, new)] = True
        return logits_BV.masked_fill(~allowed_BV.to(logits_BV.device), -torch.inf)

    def _allowed(self, row: int, new: list[int]) -> list[int]:
        read, matcher = self._rows.get(row, (new[:0], None))
        if matcher is None or read != new[: len(read)]:
            read, matcher = new[:0], self._start.deep_copy()
        for token in new[len(read) :]:
            if token == self._end_token and matcher.is_accepting():
                return [token]
            if not matcher.consume_token(token):
                raise InputError(f"row {row}: the new text does not have the form asked for, from token {token} on")
            read = [*read, token]
        self._rows[row] = (read, matcher)
        bits = matcher.compute_bitmask()
        allowed = [token for token in range(self._vocab_size) if bits[token // 8] >> token % 8 & 1]
        if matcher.is_accepting():
            return [*allowed, self._end_token]
        if not allowed:
            raise InputError(f"row {row}: the tokenizer has no token with which the form asked for can go on")
        return allowed


def _matcher(tokenizer: BytesTokenizer, regex: str | None, json_schema: str | Mapping[str, Any] | None) -> Any:
    """llguidance's automaton, before the first token. Its own end token is one more than the tokenizer has."""
    try:
        llguidance: Any = importlib.import_module("llguidance")
    except ImportError as error:
        raise ConfigError("Constraint needs llguidance: pip install '.[constrained]' in the checkout") from error
    if regex is not None:
        grammar = llguidance.LLMatcher.grammar_from_regex(regex)
    else:
        try:
            schema = json.loads(json_schema) if isinstance(json_schema, str) else json_schema
        except ValueError as error:
            raise ConfigError(f"json_schema is not JSON: {error}") from error
        # In one line, so that a line break can end it; and white space without end is no answer.
        one_line = {"whitespace_flexible": False}
        grammar = llguidance.LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=one_line)
    vocabulary = llguidance.LLTokenizer(llguidance.TokenizerWrapper(_Vocabulary(tokenizer)))
    matcher = llguidance.LLMatcher(vocabulary, grammar)
    if matcher.is_error():
        kind = "json_schema" if regex is None else "regex"
        raise ConfigError(f"{kind} cannot be used: {' '.join(matcher.get_error().split())}")
    return matcher


class _Vocabulary:
    """A tokenizer in the form that llguidance takes."""

    def __init__(self, tokenizer: BytesTokenizer) -> None:
        self._tokenizer = tokenizer
        self.bos_token_id: int | None = None
        self.eos_token_id = tokenizer.vocab_size
        self.tokens = [*(tokenizer.token_bytes(token) for token in range(tokenizer.vocab_size)), b"<end of text>"]
        self.special_token_ids = [self.eos_token_id]

    def __call__(self, text: str) -> list[int]:
        try:
            return self._tokenizer.encode(text)
        except ValueError:  # characters that the tokenizer does not know: they can never come up
            return []
