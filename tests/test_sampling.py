"""Tests of sampling against brute-force definitions, on extreme logits, and by frequency."""

from __future__ import annotations

import math
import random

import pytest
import torch
from torch import Tensor

from lmzoo import sampling
from lmzoo.errors import InputError
from lmzoo.randomness import row_seeds, uniforms
from lmzoo.sampling import SamplingConfig, process, sample
from tests.helpers import seeded

INF = math.inf
NO_HISTORY = torch.zeros(1, 0, dtype=torch.long)


def support(logits_V: Tensor) -> set[int]:
    return set((logits_V > -INF).nonzero().flatten().tolist())


def ranked(logits: list[float]) -> list[int]:
    """Ids sorted by probability, the most likely first; among ties the lowest id first."""
    return sorted(range(len(logits)), key=lambda i: (-logits[i], i))


def exact_probs(logits: list[float]) -> list[float]:
    weights = [math.exp(x - max(logits)) for x in logits]
    return [w / math.fsum(weights) for w in weights]


@pytest.mark.parametrize("p", [0.01, 0.3, 0.5, 0.9, 0.999, 1.0])
def test_top_p_is_the_smallest_set_that_reaches_p(p: float) -> None:
    rng = random.Random(1)
    for _ in range(100):
        logits = [rng.choice([rng.gauss(0, 3), 0.0, 1.0]) for _ in range(rng.choice([1, 2, 5, 12, 400]))]
        probs, total, kept = exact_probs(logits), 0.0, set()
        for token in ranked(logits):
            kept.add(token)
            total += probs[token]
            if total >= p:
                break
        got = support(sampling.top_p(torch.tensor([logits], dtype=torch.float64), p)[0])
        assert got == (set(range(len(logits))) if p == 1 else kept)


def test_top_p_breaks_ties_by_id_and_keeps_one() -> None:
    even = torch.zeros(1, 4, dtype=torch.float64)
    assert support(sampling.top_p(even, 0.5)[0]) == {0, 1}
    assert support(sampling.top_p(even, 0.51)[0]) == {0, 1, 2}
    assert support(sampling.top_p(even, 1e-12)[0]) == {0}
    many = torch.zeros(2, 4096, dtype=torch.float64)
    many[0, 7] = 50.0  # one row keeps a single token, the other very many
    assert [support(row) for row in sampling.top_p(many, 0.25)] == [{7}, set(range(1024))]
    assert support(sampling.typical_p(many, 0.25)[1]) == set(range(1024))


def test_top_k_keeps_exactly_k_the_lowest_ids_of_a_tie() -> None:
    rng = random.Random(2)
    for _ in range(100):
        logits = [rng.choice([-1.0, 0.0, 2.0, -INF]) for _ in range(9)]
        k = rng.randint(1, 12)
        expected = {token for token in ranked(logits)[:k] if logits[token] > -INF}
        assert support(sampling.top_k(torch.tensor([logits]), k)[0]) == expected


def test_min_p_and_typical_p_match_their_definitions() -> None:
    rng = random.Random(3)
    for _ in range(100):
        logits, p = [rng.gauss(0, 3) for _ in range(8)], rng.uniform(0.05, 0.95)
        probs = exact_probs(logits)
        logits_1V = torch.tensor([logits], dtype=torch.float64)
        assert support(sampling.min_p(logits_1V, p)[0]) == {i for i in range(8) if probs[i] >= p * max(probs)}
        entropy = -math.fsum(q * math.log(q) for q in probs)
        kept, total = set(), 0.0
        for token in sorted(range(8), key=lambda i: abs(-math.log(probs[i]) - entropy)):
            kept.add(token)
            total += probs[token]
            if total >= p:
                break
        assert support(sampling.typical_p(logits_1V, p)[0]) == kept


def test_penalties_and_bias_by_hand() -> None:
    logits_BV = torch.tensor([[2.0, -2.0, 1.0, 0.5], [2.0, -2.0, 1.0, 0.5]])
    history_BT = torch.tensor([[0, 1, 1], [3, 3, 3]])
    repeated = process(logits_BV, SamplingConfig(repetition_penalty=2.0), history_BT)
    assert repeated.tolist() == [[1.0, -4.0, 1.0, 0.5], [2.0, -2.0, 1.0, 0.25]]
    counted = process(logits_BV, SamplingConfig(frequency_penalty=0.5, presence_penalty=0.25), history_BT)
    assert counted.tolist() == [[1.25, -3.25, 1.0, 0.5], [2.0, -2.0, 1.0, -1.25]]
    biased = process(logits_BV, SamplingConfig(logit_bias={0: -INF, 3: 1.5}), history_BT)
    assert biased.tolist() == [[-INF, -2.0, 1.0, 2.0]] * 2


def test_penalties_never_make_a_token_certain_or_impossible() -> None:
    huge_1V = torch.tensor([[1e308, 1e308, -1e308]], dtype=torch.float64)
    history = torch.tensor([[0, 2]])
    high, other, low = process(huge_1V, SamplingConfig(repetition_penalty=0.01), history)[0].tolist()
    assert INF > high > other > low > -INF
    high, other, low = process(huge_1V, SamplingConfig(repetition_penalty=100.0), history)[0].tolist()
    assert INF > other > high > low > -INF


def random_logits(rng: random.Random) -> list[float]:
    scale = rng.choice([1e-30, 1e-3, 1.0, 1e3, 3e38])
    kind = rng.choice(["spread", "ties", "one finite", "holes", "certain", "equal"])
    size = rng.randint(1, 40)
    logits = [rng.uniform(-1, 1) * scale for _ in range(size)]
    if kind == "ties":
        logits = [rng.choice([-scale, 0.0, scale]) for _ in range(size)]
    if kind == "equal":
        logits = [rng.choice([-scale, scale])] * size
    if kind == "one finite":
        logits = [-INF] * size
    if kind in ("holes", "certain"):
        logits = [rng.choice([x, -INF, INF if kind == "certain" else x]) for x in logits]
    if max(logits) == -INF:
        logits[rng.randrange(size)] = rng.uniform(-1, 1) * scale
    return logits


def random_config(rng: random.Random) -> SamplingConfig:
    def maybe(value: float) -> float | None:
        return rng.choice([None, value])

    return SamplingConfig(
        temperature=rng.choice([0.0, 1e-30, 0.7, 1.0, 1.0, 1e30]),
        top_k=rng.choice([None, 1, 3, 100]),
        top_p=maybe(rng.choice([1e-9, rng.random() or 1.0, 1.0])),
        min_p=maybe(rng.choice([1e-9, rng.random() or 1.0, 1.0])),
        repetition_penalty=rng.choice([1.0, 1e-30, 0.5, 1.3, 1e30]),
        frequency_penalty=rng.choice([0.0, -1.0, 2.0, 1e300]),
        presence_penalty=rng.choice([0.0, -1.0, 2.0]),
        typical_p=maybe(rng.choice([1e-9, rng.random() or 1.0])),
    )


def test_sample_of_any_logits_with_any_settings_is_in_the_support() -> None:
    rng, generator = random.Random(4), seeded()
    for _ in range(2000):
        logits, config = random_logits(rng), random_config(rng)
        history = torch.tensor([[rng.randrange(len(logits)) for _ in range(rng.randint(0, 5))]], dtype=torch.long)
        logits_1V = torch.tensor([logits])
        processed_V = process(logits_1V, config, history)[0]
        token = int(sample(logits_1V, config, history, generator))
        allowed = {i for i, x in enumerate(logits) if x == INF} or {i for i, x in enumerate(logits) if x > -INF}
        assert token in support(processed_V)
        assert support(processed_V) <= allowed
        assert not processed_V.isnan().any()
        assert processed_V.max() < INF


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_sample_greedy_is_the_argmax_with_the_lowest_id_of_a_tie(dtype: torch.dtype) -> None:
    logits_BV = torch.randn(50, 20, generator=seeded()).mul(2).round().to(dtype)  # rounded: many ties
    got = sample(logits_BV, SamplingConfig(0.0), NO_HISTORY.expand(50, 0), seeded())
    assert got.tolist() == [ranked(row)[0] for row in logits_BV.tolist()]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_sample_frequencies_match_the_softmax(temperature: float) -> None:
    draws = 20_000
    logits_V = torch.tensor([2.0, 1.0, 0.0, -1.0, -INF, 0.5])
    probs_V = (logits_V.double() / temperature).softmax(0)
    tokens = sample(logits_V.expand(draws, 6), SamplingConfig(temperature), NO_HISTORY.expand(draws, 0), seeded(5))
    counts_V = tokens.bincount(minlength=6)
    assert counts_V[4] == 0
    kept = probs_V > 0
    chi_square = ((counts_V - draws * probs_V)[kept] ** 2 / (draws * probs_V[kept])).sum()
    assert chi_square < 23.5  # 4 degrees of freedom: exceeded once in 10,000 seeds by a correct sampler


def test_draw_never_takes_what_has_no_probability() -> None:
    largest = torch.tensor([0.0, 1 - 2.0**-52, 0.5], dtype=torch.float64)
    probs_V = torch.tensor([0.0, 0.25, 0.0, 0.0, 0.75, 0.0], dtype=torch.float64)
    assert sampling.draw(probs_V.expand(3, 6), largest).tolist() == [1, 4, 4]
    assert sampling.draw(torch.tensor([[0.0, 1e-300, 0.0]], dtype=torch.float64), largest[1:2]).tolist() == [1]


def test_process_shares_the_probability_among_entries_of_plus_infinity() -> None:
    logits_BV = torch.tensor([[INF, 5.0, INF, -INF]]).expand(2000, 4)
    tokens = sample(logits_BV, SamplingConfig(), NO_HISTORY.expand(2000, 0), seeded())
    counts = tokens.bincount(minlength=4).tolist()
    assert counts[1] == counts[3] == 0
    assert abs(counts[0] - 1000) < 112  # five standard deviations


def test_process_refuses_bad_logits_by_row() -> None:
    logits_BV = torch.zeros(3, 4)
    logits_BV[1, 2] = math.nan
    with pytest.raises(InputError, match="logits of row 1 hold NaN"):
        sample(logits_BV, SamplingConfig(0.0), NO_HISTORY.expand(3, 0))
    logits_BV[1] = -INF
    with pytest.raises(InputError, match="row 1 has no token left: the logits"):
        sample(logits_BV, SamplingConfig(), NO_HISTORY.expand(3, 0))
    with pytest.raises(InputError, match="row 0 has no token left: logit_bias"):
        sample(torch.zeros(1, 2), SamplingConfig(logit_bias={0: -INF, 1: -INF}), NO_HISTORY)
    with pytest.raises(InputError, match=r"token id 2: ids must be in \[0, vocab_size=2\)"):
        sample(torch.zeros(1, 2), SamplingConfig(logit_bias={2: 1.0}), NO_HISTORY)


def test_sample_randomness_is_explicit_and_per_row() -> None:
    logits_BV = torch.randn(6, 30, generator=seeded())
    history = NO_HISTORY.expand(6, 0)
    before = torch.get_rng_state()
    first = sample(logits_BV, SamplingConfig(), history, seeded(1))
    assert torch.equal(first, sample(logits_BV, SamplingConfig(), history, seeded(1)))
    assert torch.equal(first[:2], sample(logits_BV[:2], SamplingConfig(), history[:2], seeded(1)))
    assert torch.equal(before, torch.get_rng_state())
    assert not torch.equal(first, sample(logits_BV, SamplingConfig(), history, seeded(2)))


def test_sample_uses_the_first_number_of_the_stream_of_each_row() -> None:
    logits_BV = torch.randn(6, 30, generator=seeded())
    history, config = NO_HISTORY.expand(6, 0), SamplingConfig()
    uniform_B = uniforms(row_seeds(6, seeded(1)), torch.zeros(6, dtype=torch.long))
    expected = sampling.sample_with(logits_BV, config, history, uniform_B)
    assert torch.equal(sample(logits_BV, config, history, seeded(1)), expected)


def test_sample_row_does_not_depend_on_its_batch() -> None:
    rng = random.Random(6)
    for _ in range(200):
        size, config = rng.choice([3, 9, 700]), random_config(rng)
        rows = [[rng.gauss(0, spread) for _ in range(size)] for spread in (0.01, 3.0, 1.0)]  # flat, steep
        rows[2][rng.randrange(size)] = rng.choice([0.5, INF, -INF])
        logits_BV, history_BT = torch.tensor(rows), torch.randint(size, (3, 4), generator=seeded(size))
        alone = [process(logits_BV[b : b + 1], config, history_BT[b : b + 1]) for b in range(3)]
        torch.testing.assert_close(process(logits_BV, config, history_BT), torch.cat(alone), rtol=1e-12, atol=0)


def test_process_applies_the_settings_in_order() -> None:
    logits_BV = torch.randn(4, 40, generator=seeded(), dtype=torch.float64)
    history_BT = torch.randint(40, (4, 30), generator=seeded())
    counted = sampling.add_bias_(logits_BV.clone(), {3: 2.0})
    sampling.repetition_penalty_(counted, 1.3, history_BT)
    sampling.count_penalty_(counted, 0.2, 0.1, history_BT)
    stages = [counted, sampling.apply_temperature(counted, 0.8)]
    for keep, value in (
        (sampling.top_k, 20),
        (sampling.top_p, 0.8),
        (sampling.min_p, 0.2),
        (sampling.typical_p, 0.7),
    ):
        stages.append(keep(stages[-1], value))
        assert len(support(stages[-1][0])) < len(support(stages[-2][0])), "each has something to take away"
    settings = {"logit_bias": {3: 2.0}, "repetition_penalty": 1.3, "frequency_penalty": 0.2, "presence_penalty": 0.1}
    settings |= {"temperature": 0.8, "top_k": 20, "top_p": 0.8, "min_p": 0.2, "typical_p": 0.7}
    given_BV = logits_BV.clone()
    assert torch.equal(process(given_BV, SamplingConfig(**settings), history_BT), stages[-1])
    assert torch.equal(given_BV, logits_BV), "the argument is not changed"


def test_process_applies_each_penalty_alone_and_greedy_keeps_one_token() -> None:
    logits_BV, history_BT = torch.tensor([[2.0, -2.0, 1.0]]), torch.tensor([[0, 1, 1]])
    assert process(logits_BV, SamplingConfig(frequency_penalty=0.5), history_BT).tolist() == [[1.5, -3.0, 1.0]]
    assert process(logits_BV, SamplingConfig(presence_penalty=0.5), history_BT).tolist() == [[1.5, -2.5, 1.0]]
    assert process(logits_BV, SamplingConfig(), history_BT).tolist() == logits_BV.tolist()
    assert support(process(logits_BV, SamplingConfig(temperature=0.0), history_BT)[0]) == {0}


def test_process_at_the_limits_of_the_settings() -> None:
    faint = torch.tensor([[0.0, -1000.0, 0.0]], dtype=torch.float64)
    assert support(sampling.top_p(faint, 1.0)[0]) == support(sampling.typical_p(faint, 1.0)[0]) == {0, 1, 2}
    steep = torch.tensor([[1000.0, 1000.0, 0.0]], dtype=torch.float64)
    assert support(sampling.top_p(steep, 0.9)[0]) == {0, 1}
    even = torch.zeros(1, 4, dtype=torch.float64)
    assert support(sampling.typical_p(even, 0.5)[0]) == {0, 1}
    seen = torch.tensor([[0, 1, 2]])
    penalized = sampling.repetition_penalty_(torch.tensor([[-0.5, 0.0, 0.5]]), 2.0, seen)
    assert penalized.tolist() == [[-1.0, 0.0, 0.25]]
    with pytest.raises(InputError, match="token id -1"):
        sampling.add_bias_(faint, {-1: 1.0})


@pytest.mark.parametrize(
    ("name", "value"), [("top_k", 5), ("top_p", 0.5), ("min_p", 0.3), ("typical_p", 0.5), ("temperature", 2.0)]
)
def test_process_with_one_setting_equals_its_function(name: str, value: float) -> None:
    logits_BV = torch.randn(4, 40, generator=seeded(), dtype=torch.float64)
    function = getattr(sampling, "apply_temperature" if name == "temperature" else name)
    got = process(logits_BV, SamplingConfig(**{name: value}), NO_HISTORY.expand(4, 0))
    assert torch.equal(got, function(logits_BV, value))
    assert not torch.equal(got, logits_BV)


def test_process_after_top_k_equals_the_whole_vocabulary() -> None:
    logits_BV = torch.randn(4, 300, generator=torch.Generator().manual_seed(5)).mul(2).round().double()  # with ties
    config = SamplingConfig(top_k=40, top_p=0.9, min_p=0.02, typical_p=0.8)
    history_BT = torch.zeros(4, 1, dtype=torch.long)
    wanted_BV = sampling.top_p(sampling.top_k(logits_BV, 40), 0.9)
    wanted_BV = sampling.typical_p(sampling.min_p(wanted_BV, 0.02), 0.8)
    torch.testing.assert_close(process(logits_BV, config, history_BT), wanted_BV, rtol=0, atol=0)


@pytest.mark.parametrize("settings", [{"top_k": 2}, {"top_k": 2, "top_p": 0.9}, {"top_p": 0.9}, {"min_p": 0.1}])
def test_process_takes_no_rows(settings: dict[str, float]) -> None:
    config = SamplingConfig(**settings)
    assert process(torch.zeros(0, 5), config, torch.zeros(0, 3, dtype=torch.long)).shape == (0, 5)
