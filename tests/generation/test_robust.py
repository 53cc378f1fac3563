"""Tests of sampling on 10,000 extreme logit vectors with random settings: a token of the support, or a clear error."""

from __future__ import annotations

import math
import random

import pytest
import torch
from torch import Tensor

from lmzoo.errors import InputError
from lmzoo.generation.choice import Choice
from lmzoo.randomness import row_seeds, uniforms
from lmzoo.sampling import SamplingConfig, process, top_p

INF, V, ROWS, ROUNDS = math.inf, 12, 50, 200
KINDS = ["spread", "ties", "equal", "one finite", "holes", "certain", "steps"]


def logits_row(rng: random.Random) -> list[float]:
    kind, scale = rng.choice(KINDS), rng.choice([1e-38, 1e-6, 1.0, 30.0, 1e4, 3e38])
    row = [rng.uniform(-1, 1) * scale for _ in range(V)]
    if kind == "ties":
        row = [rng.choice([-scale, 0.0, scale]) for _ in row]
    if kind == "equal":
        row = [row[0]] * V
    if kind == "steps":
        row = [float(rng.randint(-3, 3)) for _ in row]
    if kind in ("holes", "certain"):
        row = [rng.choice([x, -INF, INF if kind == "certain" else x]) for x in row]
    if kind == "one finite" or max(row) == -INF:
        row = [-INF] * V
        row[rng.randrange(V)] = rng.uniform(-1, 1) * scale
    return row


def config(rng: random.Random) -> SamplingConfig:
    def maybe(*values: object) -> object:
        return rng.choice([None, rng.choice(values)])

    bias = {rng.randrange(V): rng.choice([-INF, -5.0, 2.0, 1e300]) for _ in range(rng.randint(0, 3))}
    return SamplingConfig(
        temperature=rng.choice([0.0, 1e-30, 0.3, 1.0, 1.0, 5.0, 1e30]),
        top_k=maybe(1, 2, 5, 100),
        top_p=maybe(1e-9, 0.5, 0.9, 1 - 1e-12, 1.0),
        min_p=maybe(1e-9, 0.1, 1.0),
        repetition_penalty=rng.choice([1.0, 1.0, 1e-30, 0.5, 1.3, 1e30]),
        frequency_penalty=rng.choice([0.0, 0.0, -1.0, 2.0, 1e300]),
        presence_penalty=rng.choice([0.0, 0.0, -1.0, 2.0]),
        typical_p=maybe(1e-9, 0.2, 0.95),
        logit_bias=bias or None,
    )


def allowed(logits: list[float], settings: SamplingConfig) -> set[int]:
    """The tokens that may be sampled: those with logit +inf if there are any, else all finite ones; none banned."""
    possible = {i for i, x in enumerate(logits) if x == INF} or {i for i, x in enumerate(logits) if x > -INF}
    return possible - {i for i, bias in (settings.logit_bias or {}).items() if bias == -INF}


def shifted(logits_BV: Tensor, history_BT: Tensor) -> Tensor:
    return logits_BV + 0.0


def test_sample_of_ten_thousand_rows_is_in_the_support() -> None:
    rng, before, drawn = random.Random(0), torch.get_rng_state(), 0
    for number in range(ROUNDS):
        settings, rows = [config(rng) for _ in range(3)], [logits_row(rng) for _ in range(ROWS)]
        configs = [rng.choice(settings) for _ in rows] if number % 2 else [settings[0]] * ROWS
        kept = [r for r in range(ROWS) if allowed(rows[r], configs[r])]
        for r in set(range(ROWS)) - set(kept):
            with pytest.raises(InputError, match="row 0 has no token left: logit_bias"):
                process(torch.tensor([rows[r]]), configs[r], torch.zeros(1, 0, dtype=torch.long))
        logits_BV = torch.tensor([rows[r] for r in kept])
        history_BT = torch.randint(V, (len(kept), 4), generator=torch.Generator().manual_seed(number))
        choice = Choice.make([configs[r] for r in kept], len(kept), [shifted] * (number % 3))
        seeds_B = row_seeds(len(kept), seeds=range(number, number + len(kept)))
        uniform_B = uniforms(seeds_B, torch.zeros_like(seeds_B))
        tokens = choice.choose(logits_BV, history_BT, uniform_B).tolist()
        probs_BV = choice.probabilities(logits_BV, history_BT)
        torch.testing.assert_close(probs_BV.sum(1), torch.ones(len(kept), dtype=torch.float64), rtol=1e-9, atol=0)
        for n, (r, token) in enumerate(zip(kept, tokens, strict=True)):
            assert token in allowed(rows[r], configs[r])
            assert probs_BV[n, token] > 0
            assert not set(probs_BV[n].nonzero().flatten().tolist()) - allowed(rows[r], configs[r])
        one = rng.randrange(len(kept))  # the same row alone
        alone = Choice.make(configs[kept[one]], 1).choose(
            logits_BV[one : one + 1], history_BT[one : one + 1], uniform_B[one : one + 1]
        )
        assert alone.item() == tokens[one]
        drawn += len(kept)
    assert drawn > 9000, "most rows have something left"
    assert torch.equal(before, torch.get_rng_state())


def test_sample_at_temperature_zero_is_the_argmax_and_top_p_the_smallest_set() -> None:
    rng, none = random.Random(1), torch.zeros(ROWS, 0, dtype=torch.long)
    for _ in range(ROUNDS // 10):
        rows = [logits_row(rng) for _ in range(ROWS)]
        logits_BV, uniform_B = torch.tensor(rows), torch.rand(ROWS, dtype=torch.float64, generator=torch.Generator())
        got = Choice.make(SamplingConfig(0.0), ROWS).choose(logits_BV, none, uniform_B)
        assert got.tolist() == [row.index(max(row)) for row in logits_BV.tolist()]
        p = rng.choice([1e-9, 0.2, 0.5, 0.9])
        resolved_BV = process(logits_BV, SamplingConfig(), none)
        for row, kept in zip(resolved_BV.tolist(), top_p(resolved_BV, p) > -INF, strict=True):
            weights = [math.exp(x - max(row)) for x in row]
            total, smallest = 0.0, set()
            for i in sorted(range(V), key=lambda i: (-row[i], i)):
                if total >= p:
                    break
                smallest.add(i)
                total += weights[i] / math.fsum(weights)
            assert set(kept.nonzero().flatten().tolist()) == smallest


def test_sample_refuses_nan_with_any_settings() -> None:
    rng, none = random.Random(2), torch.zeros(3, 0, dtype=torch.long)
    for _ in range(100):
        logits_BV = torch.tensor([logits_row(rng) for _ in range(3)])
        logits_BV[1, rng.randrange(V)] = math.nan
        settings = [SamplingConfig(), config(rng), SamplingConfig(0.5)]
        uniform_B = torch.zeros(3, dtype=torch.float64)
        with pytest.raises(InputError, match="logits of row 1 hold NaN"):
            Choice.make(settings, 3).choose(logits_BV, none, uniform_B)
