"""Constrained decoding: a logits processor that allows only text of a regular expression or a JSON schema.

llguidance (the extra `constrained`) computes the allowed next tokens. A logits processor sees only tokens, so this
works with every model. JSON is generated on one line. Legend: B rows, T tokens so far, V vocabulary.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lmzoo import files
from lmzoo.errors import ConfigError, InputError

if TYPE_CHECKING:
    from lmzoo.data.tokenizers import Tokenizer


class Constraint:
    """Logits processor that allows only tokens after which the new text can still match the grammar.

    `end_token` ends a text: it is allowed where the text is complete, and it is the only token allowed after that. Pass
    it as a stop token too, and choose one that the grammar does not use (usually a line break). `prompt_lengths` gives
    the position where the new text begins: one number for all rows, or one per row.

    Raises `ConfigError` unless exactly one of `regex` and `json_schema` is given, and when llguidance is missing or
    cannot parse it. A call raises `InputError` when the tokenizer has no token that continues the text.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
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
        self._rows: dict[int, tuple[list[int], Any]] = {}  # cache: each row's tokens so far and its matcher after them

    def __call__(self, logits_BV: Tensor, history_BT: Tensor) -> Tensor:
        """Logits (B, V) with -inf for every token that may not follow the tokens (B, T)."""
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
                raise InputError(f"row {row}: the new text does not match the grammar from token {token} on")
            read = [*read, token]
        self._rows[row] = (read, matcher)
        bits = matcher.compute_bitmask()
        allowed = [token for token in range(self._vocab_size) if bits[token // 8] >> token % 8 & 1]
        if matcher.is_accepting():
            return [*allowed, self._end_token]
        if not allowed:
            raise InputError(f"row {row}: the tokenizer has no token that continues the text by the grammar")
        return allowed


def _matcher(tokenizer: Tokenizer, regex: str | None, json_schema: str | Mapping[str, Any] | None) -> Any:
    """llguidance's automaton before the first token. Its own end token has the id `tokenizer.vocab_size`."""
    try:
        llguidance: Any = importlib.import_module("llguidance")
    except ImportError as error:
        raise ConfigError("Constraint needs llguidance: pip install '.[constrained]' in the checkout") from error
    if regex is not None:
        grammar = llguidance.LLMatcher.grammar_from_regex(regex)
    else:
        try:
            schema = files.parse_json(json_schema) if isinstance(json_schema, str) else json_schema
        except ValueError as error:
            raise ConfigError(f"json_schema is not JSON: {error}") from error
        # On one line, so that a line break can end it, and without unbounded white space.
        one_line = {"whitespace_flexible": False}
        grammar = llguidance.LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=one_line)
    vocabulary = llguidance.LLTokenizer(llguidance.TokenizerWrapper(_Vocabulary(tokenizer)))
    matcher = llguidance.LLMatcher(vocabulary, grammar)
    if matcher.is_error():
        kind = "json_schema" if regex is None else "regex"
        raise ConfigError(f"{kind} cannot be used: {' '.join(matcher.get_error().split())}")
    return matcher


class _Vocabulary:
    """Adapts a tokenizer to the interface that llguidance expects."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.bos_token_id: int | None = None
        self.eos_token_id = tokenizer.vocab_size
        self.tokens = [*(tokenizer.token_bytes(token) for token in range(tokenizer.vocab_size)), b"<end of text>"]
        self.special_token_ids = [self.eos_token_id]

    def __call__(self, text: str) -> list[int]:
        if not isinstance(text, str):
            raise TypeError("a tokenizer of text")  # llguidance tries bytes to learn what this function takes
        try:
            return self._tokenizer.encode(text)
        except ValueError:  # characters without a token cannot be generated
            return []
