"""Tests of the options of the sampler: samples per prompt, forced tokens, prefixes, settings by name."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from lmzoo import generation
from lmzoo.data import train_tokenizer
from lmzoo.errors import InputError
from lmzoo.generation import generate, generate_ragged, stream, stream_speculative
from lmzoo.inspect.influence import influence
from lmzoo.inspect.record import record
from lmzoo.model import LanguageModel
from lmzoo.sampling import SamplingConfig
from tests.generation.test_loop import make, prompts

INF = math.inf


def test_n_samples_share_one_prefill(monkeypatch: pytest.MonkeyPatch) -> None:
    model, idx, read = make("gpt2"), prompts(2, 5), []
    expected = generate(model, idx.repeat_interleave(3, dim=0), 10, seeds=range(6))
    decode = LanguageModel.decode

    def noted(self: LanguageModel, idx_BT: Tensor, state: object) -> tuple[Tensor, object]:
        read.append(tuple(idx_BT.shape))
        return decode(self, idx_BT, state)

    monkeypatch.setattr(LanguageModel, "decode", noted)
    got = generate(model, idx, 10, n_samples=3, seeds=range(6))
    assert torch.equal(got, expected)
    assert read == [(2, 5)] + [(6, 1)] * 9
    assert len({tuple(row) for row in got[:3].tolist()}) == 3
    assert generate(model, idx, 0, n_samples=3).shape == (6, 5)


def test_n_samples_of_ragged_prompts_and_no_rows() -> None:
    model, rows = make("gpt2"), [[1], [2, 3, 4], [5, 6]]
    got = generate_ragged(model, rows, 7, n_samples=2, seeds=range(6), stop_tokens=[0])
    for number, out in enumerate(got):
        idx = torch.tensor([rows[number // 2]])
        assert torch.equal(out, generate(model, idx, 7, seeds=[number], stop_tokens=[0])[0])
    assert generate(model, torch.zeros(0, 3, dtype=torch.long), 4, n_samples=2).shape == (0, 7)


def test_forced_tokens_come_at_their_positions_and_stop_tokens_stop() -> None:
    model, idx = make("gpt2"), prompts(2, 3)
    out = generate(model, idx, 6, forced_tokens={0: 9, 3: 4, 99: 1}, seeds=[0, 1])
    assert out[:, 3].tolist() == [9, 9]
    assert out[:, 6].tolist() == [4, 4]
    after = generate(model, out[:, :4], 2, forced_tokens={}, seeds=[0, 1])
    assert after.shape == (2, 6)
    stopped = generate(model, idx, 6, forced_tokens={1: 4, 3: 5}, stop_tokens=[4], seeds=[0, 1])
    assert (stopped[:, 4:] == 4).all(), "a row that has stopped is not forced any more"
    ragged = generate_ragged(model, [[1], [2, 3, 4]], 3, forced_tokens={1: 7}, seeds=[0, 1])
    assert [row[-2].item() for row in ragged] == [7, 7]


def test_prefix_is_not_read_again() -> None:
    model, idx = make("gpt2"), prompts(2, 6)
    _, prefix = model.eval().decode(idx[:, :4], model.init_state(2, 6))
    expected = generate(model, idx, 9, SamplingConfig(repetition_penalty=1.2), seeds=[0, 1])
    for _ in range(2):  # the prefix does not change
        got = generate(model, idx, 9, SamplingConfig(repetition_penalty=1.2), seeds=[0, 1], prefix=prefix)
        assert torch.equal(got, expected)
    changed = idx.clone()
    changed[:, :4] = 0
    greedy = SamplingConfig(0.0)
    assert torch.equal(
        generate(model, changed, 3, greedy, prefix=prefix)[:, 6:], generate(model, idx, 3, greedy)[:, 6:]
    ), "what the prefix has read is not looked at again"
    with pytest.raises(InputError, match="prefix has read 4 tokens: every prompt must have them, and at least one"):
        generate(model, idx[:, :4], 3, prefix=prefix)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_samples": 0}, "n_samples=0 must be a positive integer"),
        ({"forced_tokens": {0: 11}}, r"forced_tokens holds 0: 11; ids must be in \[0, vocab_size=11\)"),
        ({"forced_tokens": {-1: 3}}, "forced_tokens holds -1: 3"),
        ({"n_samples": 2, "seeds": [1, 2]}, "seeds has 2 entries: there must be one for each of the 4 rows"),
    ],
)
def test_job_refuses_impossible_options(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        stream(make("bigram"), prompts(2, 3), 4, **options)


def test_functions_of_generation_name_what_is_no_model() -> None:
    idx: Any = prompts(2, 3)
    calls: list[Callable[[Any], object]] = [
        lambda model: generation.generate(model, idx, 2),
        lambda model: generation.stream(model, idx, 2),
        lambda model: generation.generate_ragged(model, [], 2),
        lambda model: generation.beam_search(model, idx, 2, beams=2),
        lambda model: generation.score(model, idx),
        lambda model: generation.generate_with_log_probs(model, idx, 2),
        lambda model: generation.generate_speculative(model, make("bigram"), idx[:1], 2),
        lambda model: generation.generate_text(model, train_tokenizer("byte", []), "a", 2),
        lambda model: influence(model, idx),
        lambda model: record(model, idx),
    ]
    for call in calls:
        for wrong, kind in ((None, "NoneType"), ("gpt2", "str"), (torch.nn.Linear(2, 2), "Linear")):
            with pytest.raises(InputError, match=f"^model={kind} must be a LanguageModel"):
                call(wrong)


def test_stream_refuses_an_option_with_an_unknown_name() -> None:
    model, idx = make("bigram"), prompts(2, 3)
    names = "forced_tokens, generator, n_samples, prefix, processors, seeds, stop_tokens"
    with pytest.raises(InputError, match=f"'stop_token' is not an option: the options are {names}"):
        stream(model, idx, 4, stop_token=[3])
    with pytest.raises(
        InputError, match="'n_samples' is not an option: the options are generator, n_guesses, seeds, stop_tokens"
    ):
        stream_speculative(model, model, idx, 4, n_samples=2)


def test_generate_of_a_model_takes_every_setting_by_name() -> None:
    model, idx = make("bigram"), prompts(2, 3)
    settings = {"temperature": 1.2, "frequency_penalty": 0.3, "presence_penalty": 0.2, "typical_p": 0.9}
    settings["logit_bias"] = {4: -INF}
    seeded = torch.Generator().manual_seed(0)
    got = model.generate(idx, 20, **settings, generator=torch.Generator().manual_seed(0))
    assert torch.equal(got, generate(model, idx, 20, SamplingConfig(**settings), generator=seeded))
    assert 4 not in got[:, 3:]
    with pytest.raises(InputError, match=r"temprature=1.0 is not an option of generation; did you mean 'temperature'?"):
        model.generate(idx, 2, temprature=1.0)
