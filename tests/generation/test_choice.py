"""Tests of next-token selection: logits processors, then the sampling settings of each row."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lmzoo.errors import InputError
from lmzoo.generation import generate, stream
from lmzoo.sampling import SamplingConfig
from tests.generation.test_loop import make, prompts

INF = math.inf


def test_processors_come_before_the_settings_and_get_all_tokens() -> None:
    model, idx, seen = make("bigram"), prompts(2, 3), []

    def note(logits_BV: Tensor, history_BT: Tensor) -> Tensor:
        seen.append(history_BT.clone())
        return logits_BV

    def only_even(logits_BV: Tensor, history_BT: Tensor) -> Tensor:
        return logits_BV.masked_fill(torch.arange(11) % 2 == 1, -INF)

    out = generate(model, idx, 12, SamplingConfig(1.5, top_k=3), processors=[note, only_even], seeds=[0, 1])
    assert (out[:, 3:] % 2 == 0).all()
    assert len(out[:, 3:].unique()) > 2
    assert all(torch.equal(history, out[:, : 3 + n]) for n, history in enumerate(seen))
    assert not torch.equal(out, generate(model, idx, 12, SamplingConfig(1.5, top_k=3), seeds=[0, 1]))


def test_processors_with_wrong_results_are_refused() -> None:
    model, idx = make("bigram"), prompts(2, 3)
    with pytest.raises(InputError, match=r"a logits processor gave logits \(2, 10\): they must be \(2, 11\)"):
        generate(model, idx, 2, processors=[lambda logits, _: logits[:, :10]])
    with pytest.raises(InputError, match="logits of row 0 hold NaN"):
        generate(model, idx, 2, processors=[lambda logits, _: logits * torch.nan])
    with pytest.raises(InputError, match="row 0 has no token left"):
        generate(model, idx, 2, processors=[lambda logits, _: torch.full_like(logits, -INF)])


@pytest.mark.parametrize("name", ["bigram", "gpt2"])
def test_choice_gives_each_row_its_own_settings(name: str) -> None:
    model, idx = make(name), prompts(4, 3)
    configs = [
        SamplingConfig(0.0),
        SamplingConfig(0.7, top_p=0.8),
        SamplingConfig(0.0),
        SamplingConfig(2.0, repetition_penalty=1.5, logit_bias={1: -INF}),
    ]
    together = generate(model, idx, 12, configs, seeds=range(4))
    for row, config in enumerate(configs):
        assert torch.equal(generate(model, idx[row : row + 1], 12, config, seeds=[row])[0], together[row])
    with pytest.raises(InputError, match="config has 3 entries: there must be one for each of the 4 rows"):
        stream(model, idx, 3, configs[:3])
    broken = torch.zeros(4, 11)
    broken[3, 2] = torch.nan
    with pytest.raises(InputError, match="logits of row 3 hold NaN"):
        generate(model, idx, 1, configs, processors=[lambda logits, _: logits + broken])
