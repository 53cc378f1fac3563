"""Examines how a model predicts a text: surprise of each token, alternatives, influence, and values of layers.

Legend: B batch, T time, V vocabulary, K alternatives, H heads.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from html import escape
from typing import Any

import torch
from torch import Tensor

from lmzoo.data.tokenizers import Tokenizer
from lmzoo.errors import InputError
from lmzoo.generation.loop import evaluating
from lmzoo.inspect.influence import influence
from lmzoo.inspect.pieces import pieces_of, text_of
from lmzoo.inspect.record import record
from lmzoo.inspect.recording import Recording, kind_of
from lmzoo.model import LanguageModel

TOKENS = 256  # most tokens of a text: the influence costs T², and a page of more is slow on a phone
TOP = 5  # alternatives of a token
DIGITS = 4  # significant digits of a number in JSON and on the page
WHOLE = ("attention.weights", "attention.window", "router.chosen")  # not replaced by means


@dataclass(frozen=True)
class Token:
    """A token of the text, or the place after the last one, whose `id` and `nats` are None.

    `nats` is the surprise, -log p(token | earlier tokens), None for the first token, which nothing predicts. `rank` is
    the place of the token among the predictions, 1 for the most probable. `top` holds the most probable tokens at its
    place, with their probabilities.
    """

    id: int | None
    text: str
    nats: float | None
    rank: int | None
    top: Sequence[tuple[str, float]]

    @property
    def bits(self) -> float | None:
        """The surprise in bits."""
        return None if self.nats is None else self.nats / math.log(2)


@dataclass(frozen=True, repr=False)
class Inspection:
    """Result of `examine`: `tokens` has T tokens and the place after them.

    `influence` (T, T) is what `lmzoo.inspect.influence` returns: row t is about the prediction of token t + 1. It is
    None for a model that has none, and `problem` says why. `recording` holds the values that layers offer, for one row:
    attention weights (1, T, H, T) and chosen experts (1, T, K) as they are, and means (1, T) of the others.
    """

    name: str
    tokens: Sequence[Token]
    n_bytes: int  # of the tokens that are predicted: all but the first
    influence: Tensor | None
    problem: str | None
    recording: Recording
    left_out: int = 0  # tokens that were cut off

    @property
    def nats(self) -> float:
        """The mean surprise of a token in nats; 0 for a text of one token."""
        known = [token.nats for token in self.tokens if token.nats is not None]
        return sum(known) / max(1, len(known))

    @property
    def bits_per_byte(self) -> float:
        """The surprise of all predicted tokens in bits, divided by their bytes."""
        return sum(token.bits or 0.0 for token in self.tokens) / max(1, self.n_bytes)

    @property
    def note(self) -> str | None:
        """A line about what was cut off; None for a whole text."""
        if not self.left_out:
            return None
        kept = len(self.tokens) - 1
        return f"{self.name}: the text has {kept + self.left_out:,} tokens: only the first {kept:,} are inspected"

    def to_dict(self) -> dict[str, Any]:
        """Converts to plain values, for JSON; without attention weights, which `lmzoo.inspect.record` returns."""
        return {
            "name": self.name,
            "nats_per_token": rounded(self.nats),
            "bits_per_byte": rounded(self.bits_per_byte),
            "tokens": [_token_values(token) for token in self.tokens],
            "left_out": self.left_out,
            "influence": None if self.influence is None else rounded(self.influence.tolist()),
            "problem": self.problem,
            "layers": {
                name: value[0].tolist() if kind_of(name) == "router.chosen" else rounded(value[0].tolist())
                for name, value in self.recording.items()
                if not kind_of(name).startswith("attention.")
            },
        }

    def __repr__(self) -> str:
        return (
            f"<inspection of {self.name}: {len(self.tokens) - 1:,} tokens, {self.nats:.3f} nats per token, "
            f"{self.bits_per_byte:.3f} bits per byte>"
        )

    def _repr_html_(self) -> str:
        """The text, colored by surprise; the page of `lmzoo inspect` shows more."""
        most = max((token.nats or 0.0 for token in self.tokens), default=0.0) or 1.0
        spans = "".join(
            f'<span title="{escape(_title(token))}" style="background: rgba(213, 94, 0, '
            f'{0.7 * (token.nats or 0.0) / most:.2f})">{escape(token.text)}</span>'
            for token in self.tokens[:-1]
        )
        return f'<p>{escape(repr(self))}</p><p style="white-space: pre-wrap">{spans}</p>'


def examine(model: LanguageModel, tokenizer: Tokenizer, text: str, *, name: str | None = None) -> Inspection:
    """Returns what the model makes of a text, of which at most `TOKENS` tokens are read.

    A model that does not extrapolate reads at most its context length. `name` is shown (default: the family). Raises
    `InputError` for an empty text, and `DataError` for one that the tokenizer cannot encode.
    """
    ids = tokenizer.encode(text)
    if not ids:
        raise InputError("text is empty: there is nothing to inspect")
    kept = ids[: most_tokens(model)]
    idx_1T = torch.tensor([kept], device=model.device)
    with evaluating(model), torch.no_grad():
        logits_1TV = model(idx_1T).logits
        assert logits_1TV is not None
        log_p_TV = logits_1TV[0].double().log_softmax(dim=-1).cpu()
    problem, found = None, None
    try:
        found = influence(model, idx_1T)[0].cpu()
    except InputError as error:
        problem = str(error)
    return Inspection(
        name=name or model.family or type(model).__name__,
        tokens=_tokens(tokenizer, kept, log_p_TV),
        n_bytes=sum(len(tokenizer.token_bytes(token)) for token in kept[1:]),
        influence=found,
        problem=problem,
        recording=record(model, idx_1T, reduce=_summary),
        left_out=len(ids) - len(kept),
    )


def most_tokens(model: LanguageModel) -> int:
    """Returns how many tokens of a text are inspected."""
    return TOKENS if model.traits.extrapolates else min(TOKENS, model.config.context_length)


def _summary(name: str, value: Tensor) -> Tensor:
    """Keeps maps and choices; of other values (1, T, ...) returns the mean of each token."""
    return (
        value.cpu()
        if kind_of(name) in WHOLE
        else value.double().flatten(2).mean(dim=-1).cpu()
        if value.ndim > 2
        else value.cpu()
    )


def _tokens(tokenizer: Tokenizer, ids: Sequence[int], log_p_TV: Tensor) -> list[Token]:
    """Returns the tokens of a text with what the model predicted at their places, and the place after the last."""
    # Stable, so that tokens with equal probabilities have one order in ranks and alternatives.
    order_TV = log_p_TV.argsort(dim=-1, descending=True, stable=True)
    alternatives = [
        [(text_of(tokenizer.token_bytes(token)), math.exp(log_p_V[token])) for token in order_V[:TOP].tolist()]
        for log_p_V, order_V in zip(log_p_TV, order_TV, strict=True)
    ]
    pieces = pieces_of(tokenizer, ids)
    tokens = [Token(ids[0], pieces[0], None, None, [])]
    for t, (token, piece) in enumerate(zip(ids[1:], pieces[1:], strict=True)):
        rank = 1 + int((order_TV[t] == token).nonzero())
        tokens.append(Token(token, piece, -float(log_p_TV[t, token]), rank, alternatives[t]))
    return [*tokens, Token(None, "", None, None, alternatives[-1])]


def rounded(value: Any) -> Any:
    """Returns a number, or lists of numbers, with few digits; None for a number that JSON does not have."""
    if isinstance(value, list):
        return [rounded(each) for each in value]
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None


def _token_values(token: Token) -> dict[str, Any]:
    numbers = {"nats": token.nats, "bits": token.bits}
    top = [[text, rounded(p)] for text, p in token.top]
    return asdict(token) | {name: None if x is None else rounded(x) for name, x in numbers.items()} | {"top": top}


def _title(token: Token) -> str:
    return "" if token.bits is None else f"{token.nats:.2f} nats, {token.bits:.2f} bits"
