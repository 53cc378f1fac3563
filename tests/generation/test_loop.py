"""Tests of the sampler loop: greedy against forward, rows in a batch against rows alone, modes, limits, errors."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import Tensor, nn

import lmzoo
from lmzoo.errors import ConfigError, InputError
from lmzoo.generation import generate, generate_ragged, loop, stream
from lmzoo.model import LanguageModel
from lmzoo.sampling import SamplingConfig
from tests.helpers import far_from_uniform, seeded

GREEDY = SamplingConfig(0.0)
NAMES = ["bigram", "gpt2"]
CONTEXT = 8


@functools.cache
def make(name: str) -> LanguageModel:
    """A small model whose distribution is far from uniform and depends on the past tokens."""
    sizes = {"d_model": 16, "n_layers": 2, "n_heads": 2, "dropout": 0.5} if name == "gpt2" else {}
    model = lmzoo.create_model(name, vocab_size=11, context_length=CONTEXT, **sizes)
    return far_from_uniform(model, std=0.7, seed=1)


def prompts(rows: int, length: int) -> Tensor:
    return torch.randint(11, (rows, length), generator=seeded(2))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("length", [1, 3, 12])
def test_generate_greedy_is_the_argmax_of_forward_past_the_context_too(name: str, length: int) -> None:
    model = make(name)
    got = model.generate(prompts(3, length), 14, temperature=0)
    assert got.shape == (3, length + 14)
    assert torch.equal(got[:, :length], prompts(3, length))
    assert len(got[:, length:].unique()) > 3, "the test needs a model that says more than one thing"
    model.eval()
    for t in range(length, length + 14):
        logits, _ = model(got[:, max(0, t - CONTEXT) : t])
        assert torch.equal(got[:, t], logits[:, -1].argmax(-1))


def test_generate_with_the_default_arguments() -> None:
    model = lmzoo.create_model("bigram", vocab_size=65)
    idx = torch.zeros((1, 1), dtype=torch.long)
    assert model.generate(idx, max_new_tokens=100).shape == (1, 101)
    assert idx.shape == (1, 1)


@pytest.mark.parametrize("name", NAMES)
def test_generate_with_a_seed_is_reproducible_and_keeps_the_global_state(name: str) -> None:
    model, idx = make(name), prompts(3, 2)
    before = torch.get_rng_state()
    first = model.generate(idx, 20, generator=seeded())
    assert torch.equal(first, model.generate(idx, 20, generator=seeded()))
    assert torch.equal(torch.stack(list(model.stream(idx, 20, generator=seeded())), 1), first[:, 2:])
    assert not torch.equal(first, model.generate(idx, 20, generator=seeded(1)))
    one = seeded()
    assert not torch.equal(model.generate(idx, 20, generator=one), model.generate(idx, 20, generator=one))
    assert torch.equal(before, torch.get_rng_state())


def test_generate_without_a_generator_uses_the_global_one() -> None:
    model, idx = make("bigram"), prompts(2, 2)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        first, second = model.generate(idx, 20), model.generate(idx, 20)
        torch.manual_seed(3)
        assert torch.equal(first, model.generate(idx, 20))
    assert not torch.equal(first, second)


@pytest.mark.parametrize("name", NAMES)
def test_generate_row_does_not_depend_on_its_batch(name: str) -> None:
    model, idx = make(name), prompts(4, 3)
    seeds = [5, 6, 7, 8]
    together = generate(model, idx, 15, seeds=seeds)
    for r, seed in enumerate(seeds):
        assert torch.equal(generate(model, idx[r : r + 1], 15, seeds=[seed])[0], together[r])
    assert torch.equal(
        model.generate(idx[:1], 15, generator=seeded())[0], model.generate(idx, 15, generator=seeded())[0]
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("stop_tokens", [(), (3, 7)])
@pytest.mark.parametrize("new", [0, 1, 12])
def test_generate_ragged_equals_each_prompt_alone(name: str, stop_tokens: tuple[int, ...], new: int) -> None:
    model = make(name)
    rows = [[1], [2, 3, 4, 5, 6, 7, 8, 9, 10, 0], torch.tensor([4, 7, 7]), [0, 1, 3]]
    config = SamplingConfig(0.9, top_p=0.95, repetition_penalty=1.2)
    seeds = [1, 2, 3, 4]
    together = generate_ragged(model, rows, new, config, stop_tokens=stop_tokens, seeds=seeds)
    for row, seed, got in zip(rows, seeds, together, strict=True):
        idx = torch.as_tensor(row)[None]
        alone = generate(model, idx, new, config, stop_tokens=stop_tokens, seeds=[seed])
        assert torch.equal(got, alone[0])
    from_generator = generate_ragged(model, rows, new, config, stop_tokens=stop_tokens, generator=seeded())
    assert torch.equal(
        from_generator[0], generate_ragged(model, rows[:1], new, config, stop_tokens=stop_tokens, generator=seeded())[0]
    )


def test_stream_repeats_stop_tokens_and_ends_with_the_last_row() -> None:
    model, idx = make("bigram"), prompts(3, 2)
    plain = generate(model, idx, 60, generator=seeded())
    stopped = generate(model, idx, 60, stop_tokens=[4], generator=seeded())
    steps = list(stream(model, idx, 60, stop_tokens=[4], generator=seeded()))
    ends = []
    for r in range(3):
        hits = (plain[r, 2:] == 4).nonzero().flatten().tolist()
        assert hits, "the test needs rows that stop"
        ends.append(hits[0])
        assert torch.equal(stopped[r, : 3 + hits[0]], plain[r, : 3 + hits[0]])
        assert (stopped[r, 2 + hits[0] :] == 4).all()
    assert stopped.shape == (3, 62)
    assert len(steps) == max(ends) + 1 < 60
    assert len(set(ends)) > 1


def test_generate_ignores_a_stop_token_in_the_prompt() -> None:
    model = make("bigram")
    idx = torch.tensor([[4, 4]])
    assert torch.equal(
        generate(model, idx, 5, seeds=[1], stop_tokens=[4])[0, 2], generate(model, idx, 5, seeds=[1])[0, 2]
    )


@pytest.mark.parametrize("name", NAMES)
def test_generate_no_rows_and_no_new_tokens(name: str) -> None:
    model = make(name)
    assert model.generate(torch.zeros(0, 3, dtype=torch.long), 4, stop_tokens=[1]).shape == (0, 7)
    idx = prompts(2, 3)
    same = model.generate(idx, 0)
    assert torch.equal(same, idx)
    assert same.data_ptr() != idx.data_ptr()
    assert generate_ragged(model, [], 5) == []


def test_stream_restores_the_mode_and_turns_dropout_off() -> None:
    model, idx = make("gpt2"), prompts(2, 3)
    model.train()
    steps = model.stream(idx, 10, temperature=0)
    first = next(steps)
    assert model.training
    assert model.blocks[0].training
    rest = [first, *steps]
    assert model.training
    model.eval()
    assert torch.equal(torch.stack(rest, 1), model.generate(idx, 10, temperature=0)[:, 3:])
    assert not model.training


def test_stream_restores_the_mode_when_the_model_fails() -> None:
    model = lmzoo.create_model("bigram", vocab_size=4)
    nn.init.constant_(next(model.parameters()), torch.nan)
    model.train()
    with pytest.raises(InputError, match="logits of row 0 hold NaN"):
        model.generate(torch.zeros(1, 1, dtype=torch.long), 3)
    assert model.training


def test_stream_yields_tensors_that_the_caller_may_change() -> None:
    model, idx = make("bigram"), prompts(2, 2)
    expected = model.generate(idx, 10, generator=seeded(), stop_tokens=[0])
    got = []
    for token_B in model.stream(idx, 10, generator=seeded(), stop_tokens=[0]):
        got.append(token_B.clone())
        token_B.zero_()
    assert torch.equal(torch.stack(got, 1), expected[:, 2 : 2 + len(got)])


def test_generate_returns_tokens_without_gradient_that_can_be_trained_on() -> None:
    model, idx = make("gpt2"), prompts(2, 3)
    out = model.generate(idx, 4)
    assert not out.requires_grad
    model(out[:, :-1], out[:, 1:]).loss.backward()


def test_generate_refuses_bad_input_before_the_first_token() -> None:
    model, idx = make("bigram"), prompts(2, 3)
    before = torch.get_rng_state()
    with pytest.raises(InputError, match="idx is an empty prompt"):
        model.stream(idx[:, :0], 5)
    with pytest.raises(InputError, match=r"prompts\[1\] is an empty prompt"):
        generate_ragged(model, [[1], []], 5)
    with pytest.raises(InputError, match="idx holds the id 11"):
        model.stream(torch.tensor([[11]]), 5)
    with pytest.raises(InputError, match=r"idx is torch.float32 of shape \(1, 1\)"):
        model.stream(torch.zeros(1, 1), 5)
    with pytest.raises(InputError, match=r"prompts\[0\]=\[1.5\] must be a sequence of token ids"):
        generate_ragged(model, [[1.5]], 5)
    with pytest.raises(InputError, match="max_new_tokens=-1 must be an integer, 0 or above"):
        model.stream(idx, -1)
    with pytest.raises(InputError, match="stop_tokens holds the id 11"):
        model.stream(idx, 5, stop_tokens=[11])
    with pytest.raises(ConfigError, match="temperature=-1 must be"):
        model.stream(idx, 5, temperature=-1)
    assert torch.equal(before, torch.get_rng_state())


def test_stream_of_a_very_long_text_begins_at_once() -> None:
    """Memory grows with the text, not with `max_new_tokens`."""
    steps = stream(make("gpt2"), prompts(2, 5), 10**11, seeds=[0, 1], forced_tokens={2: 3, 10**10: 4})
    tokens = torch.stack([next(steps) for _ in range(30)], dim=1)
    short = generate(make("gpt2"), prompts(2, 5), 30, seeds=[0, 1], forced_tokens={2: 3})
    assert torch.equal(tokens, short[:, 5:])


def test_steps_grow_the_tokens_and_the_state(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = generate(make("llama"), prompts(2, 5), 60, SamplingConfig(repetition_penalty=1.2), seeds=[0, 1])
    monkeypatch.setattr(loop, "_FIRST_TOKENS", 1)
    model = make("llama")
    object.__setattr__(model.config, "context_length", 1)  # room for four tokens
    got = generate(model, prompts(2, 5), 60, SamplingConfig(repetition_penalty=1.2), seeds=[0, 1])
    assert torch.equal(got, expected)


def test_generate_refuses_rows_that_no_memory_holds() -> None:
    with pytest.raises(InputError, match=r"decoding 20000000000 rows together needs .* of memory"):
        generate(make("gpt2"), prompts(2, 5), 3, n_samples=10**10)


def test_generate_ragged_refuses_a_number_in_place_of_prompts() -> None:
    with pytest.raises(InputError, match="must be a sequence of prompts"):
        generate_ragged(make("bigram"), torch.tensor(3), 2)
