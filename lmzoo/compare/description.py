"""Describes a comparison before its first run: text, budget, protocol, yardsticks, and the prompt of its samples."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from lmzoo.compare import protocol
from lmzoo.compare.budget import Budget, tokens_per_step
from lmzoo.compare.decode_speed import decode_length
from lmzoo.compare.ngram import count_references
from lmzoo.compare.plan import cut_contexts
from lmzoo.compare.results import Results, portable
from lmzoo.compare.yardsticks import yardsticks
from lmzoo.data.corpora import Corpus
from lmzoo.data.halves import Half
from lmzoo.data.overlap import measure_overlap
from lmzoo.data.store import TokenSplit, TokenStore
from lmzoo.data.synthetic import entropy_rate
from lmzoo.data.tokenizers import Tokenizer
from lmzoo.hardware import default_device, hardware, versions
from lmzoo.runs.inputs import PreparedData
from lmzoo.runs.spec import RunSpec

PROMPT_CHARACTERS = 40


def describe(
    specs: Sequence[RunSpec],
    data: PreparedData,
    store: TokenStore,
    budget: Budget,
    stride: int | None,
    states: Mapping[str, Mapping[str, Any]] | None,
    halves: tuple[Half, Half] | None,
) -> Results:
    """Make the results without models: what is known before the first run.

    `states` is what `protocol.carried_states` returned; None if the context is reset.
    """
    reported = store.val if halves is None else halves[1].split
    longest = max(specs, key=lambda spec: spec.train.steps)
    corpus, vocab_size, train = data.corpus, data.tokenizer.vocab_size, longest.train
    assert isinstance(corpus, Corpus)
    context_length = longest.model_config(vocab_size).context_length
    references, limits = count_references(
        store, reported, vocab_size, train, context_length, stride, carried=states is not None
    )
    overlap, removed = measure_overlap(corpus), corpus.near_duplicates
    return Results(
        corpus={
            "name": portable(corpus.name),
            "sha256": corpus.sha256,
            "origin": corpus.origin,
            "overlap": dataclasses.asdict(overlap) | {"text": str(overlap)},
            "near_duplicates": None if removed is None else dataclasses.asdict(removed) | {"text": str(removed)},
            "train_tokens": store.train.n_tokens,
            "val_tokens": store.val.n_tokens,
            "val_bytes": store.val.n_bytes,
            "entropy_rate": _entropy_rate(longest.data, store.val),
        },
        tokenizer={"spec": data.tokenizer.spec, "vocab_size": vocab_size, "sha256": data.tokenizer.sha256},
        budget={
            "kind": budget.kind,
            "amount": budget.amount,
            "steps": train.steps,
            "batch_size": train.batch_size * train.grad_accumulation,
            "context_length": context_length,
            "documents": train.documents,
            "tokens": round(train.steps * tokens_per_step(longest, vocab_size, store.train)),
        },
        seed=train.seed,
        hardware=hardware(default_device()),
        versions=versions(),
        models=[],
        references=references,
        yardsticks=yardsticks(reported, data.tokenizer),
        protocol=protocol.describe(
            reported, context_length, stride or context_length, half=halves is not None, states=states
        ),
        bigram_limits=limits,
        decode_tokens=decode_length(context_length),
        cut_contexts=cut_contexts(specs),
        complete=False,
    )


def _entropy_rate(data: str, val: TokenSplit) -> dict[str, float] | None:
    """Return the entropy rate of a synthetic source in nats per token, and its error; None for any other text."""
    rate, per_token = entropy_rate(data), val.n_chars / val.n_tokens
    return None if rate is None else {"nats": rate.nats * per_token, "error": rate.error * per_token}


def beginning(split: TokenSplit, tokenizer: Tokenizer) -> list[int]:
    """Choose a prompt: the first whole line of the split, cut between words if it is too long."""
    text = tokenizer.decode(split.tokens[:1000].tolist())
    lines = [line.strip() for line in text.split("\n")[1:-1]]
    line = next((line for line in lines if len(line) >= PROMPT_CHARACTERS // 4), text[:PROMPT_CHARACTERS])
    cut = line[: PROMPT_CHARACTERS + 1]
    return tokenizer.encode(cut.rsplit(" ", 1)[0] if len(cut) > PROMPT_CHARACTERS else cut)
