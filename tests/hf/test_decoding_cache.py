"""Tests that generation by transformers is exact for every family: each row of a batch equals the row alone."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any, cast

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache

from lmzoo import registry
from lmzoo.conformance import Subject, subject
from lmzoo.errors import InputError
from lmzoo.generation import beam_search, generate
from lmzoo.hf.causal_lm import LmzooForCausalLM
from lmzoo.hf.decoding_cache import DecodingCache
from lmzoo.model import LanguageModel
from lmzoo.sampling import SamplingConfig
from tests.generation.test_every_kind_of_state import FAMILIES

GREEDY = SamplingConfig(0.0)
PADDING = 10**6  # an id outside of every vocabulary: padding is never read
LENGTHS = (7, 3, 5, 3)  # of the prompts of a batch


@cache
def small(family: str) -> Subject:
    return subject(family)


@cache
def wrapped(family: str) -> LmzooForCausalLM:
    return LmzooForCausalLM.of(small(family).model())


def model_of(family: str) -> LanguageModel:
    return wrapped(family).model


def padded(family: str, side: str = "left") -> tuple[list[Tensor], Tensor, Tensor]:
    """Returns prompts (1, T), and the batch of them with padding, with its mask."""
    rows = [small(family).tokens(1, T, seed=T) for T in LENGTHS]
    ids = torch.nn.utils.rnn.pad_sequence(
        [row[0] for row in rows], batch_first=True, padding_value=PADDING, padding_side=side
    )
    return rows, ids, (ids != PADDING).long()


def alone(family: str, prompt: Tensor, n_new: int) -> tuple[Tensor, Tensor]:
    """Returns the greedy continuation of a prompt (N,), and the logits before each of its tokens (N, V)."""
    model, T = model_of(family), prompt.shape[1]
    tokens = generate(model, prompt, n_new, GREEDY)
    logits, _ = model.decode_all(tokens[:, :-1], model.init_state(1, T + n_new))
    return tokens[0, T:], logits[0, T - 1 :]


@torch.no_grad()
def together(family: str, ids: Tensor, mask: Tensor, n_new: int, **options: Any) -> tuple[Tensor, Tensor]:
    """Returns greedy continuations (B, N) by transformers, and the logits before each token (B, N, V)."""
    wanted = {"do_sample": False, "return_dict_in_generate": True, "output_logits": True, **options}
    found = cast(Any, wrapped(family).generate)(ids, attention_mask=mask, max_new_tokens=n_new, **wanted)
    return found.sequences[:, ids.shape[1] :], torch.stack(found.logits, dim=1)


@pytest.mark.parametrize("family", registry.families())
def test_generate_rows_of_a_padded_batch_equal_the_rows_alone(family: str) -> None:
    rows, ids, mask = padded(family)
    # A model that sees a window decodes beyond it: there each row slides at another time.
    n_new = 4 if model_of(family).traits.extrapolates else small(family).context - 2
    tokens, logits = together(family, ids, mask, n_new)
    for number, row in enumerate(rows):
        expected, expected_logits = alone(family, row, n_new)
        assert torch.equal(tokens[number], expected)
        torch.testing.assert_close(logits[number], expected_logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_generate_without_a_cache_gives_the_same(family: str) -> None:
    _, ids, mask = padded(family)
    n_new = small(family).context - 5  # the last tokens are read by a window that slides
    tokens, logits = together(family, ids, mask, n_new)
    again, same = together(family, ids, mask, n_new, use_cache=False)
    assert torch.equal(tokens, again)
    torch.testing.assert_close(logits, same, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("use_cache", [True, False])
def test_generate_stops_each_row_at_its_end(use_cache: bool) -> None:
    rows, ids, mask = padded("griffin")
    expected = [alone("griffin", row, 6)[0].tolist() for row in rows]
    end = expected[0][2]
    tokens, _ = together("griffin", ids, mask, 6, eos_token_id=end, pad_token_id=PADDING, use_cache=use_cache)
    for found, wanted in zip(tokens.tolist(), expected, strict=True):
        length = wanted.index(end) + 1 if end in wanted else 6
        assert found == wanted[:length] + [PADDING] * (6 - length)
    assert tokens[0, -1] == PADDING


@pytest.mark.parametrize("use_cache", [True, False])
def test_generate_is_exact_with_padding_on_the_right(use_cache: bool) -> None:
    rows, ids, mask = padded("griffin", side="right")
    tokens, _ = together("griffin", ids, mask, 4, use_cache=use_cache)
    for number, row in enumerate(rows):
        assert torch.equal(tokens[number], alone("griffin", row, 4)[0])
    mask[1] = 0
    with pytest.raises(InputError, match="attention_mask has a row without a token"):
        together("griffin", ids, mask, 4, use_cache=use_cache)


@pytest.mark.parametrize("family", FAMILIES)
def test_cache_continues_in_chunks_with_padding_anywhere(family: str) -> None:
    ids = small(family).tokens(3, 9)
    mask = torch.ones(3, 9, dtype=torch.bool)
    mask[0, :4] = mask[1, 2:6] = mask[2, 7:] = False  # longer than the first chunk, in the middle, at the end
    ids = ids.masked_fill(~mask, PADDING)
    chunks, past = list[Tensor](), None
    with torch.no_grad():
        for start, end in ((0, 3), (3, 4), (4, 9)):
            out = wrapped(family)(ids[:, start:end], attention_mask=mask[:, :end], past_key_values=past)
            past = out.past_key_values
            assert past.get_seq_length() == end
            chunks.append(out.logits)
        whole = wrapped(family)(ids, attention_mask=mask, use_cache=False).logits
    logits = torch.cat(chunks, dim=1)
    for number, row in enumerate(mask):
        expected = model_of(family)(ids[number, row][None]).logits[0].detach()
        torch.testing.assert_close(logits[number, row], expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(whole[number, row], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", ["gpt2", "griffin", "log_linear", "mamba"])
def test_generate_with_beams_finds_what_beam_search_finds(family: str) -> None:
    rows, ids, mask = padded(family)
    tokens, _ = together(family, ids, mask, 5, num_beams=3)
    for number, row in enumerate(rows):
        assert torch.equal(tokens[number], beam_search(model_of(family), row, 5, beams=3).tokens[0, row.shape[1] :])


@pytest.mark.parametrize("family", FAMILIES)
def test_generate_with_a_draft_equals_greedy(family: str) -> None:
    idx = small(family).tokens(1, 6).repeat(1, 2)
    expected, _ = together(family, idx, torch.ones_like(idx), 9)
    for options in ({"prompt_lookup_num_tokens": 3}, {"assistant_model": wrapped("bigram")}):
        tokens, _ = together(family, idx, torch.ones_like(idx), 9, **options)
        assert torch.equal(tokens, expected), options


def test_generate_in_chunks_of_the_prompt_gives_the_same() -> None:
    _, ids, mask = padded("griffin")
    tokens, logits = together("griffin", ids, mask, 3)
    again, same = together("griffin", ids, mask, 3, prefill_chunk_size=2)
    assert torch.equal(tokens, again)
    torch.testing.assert_close(logits, same, rtol=1e-5, atol=1e-5)


def test_generate_samples_several_continuations_of_each_prompt() -> None:
    rows, ids, mask = padded("mamba")
    torch.manual_seed(0)
    options = {"do_sample": True, "num_return_sequences": 2, "top_k": 5}
    tokens, logits = together("mamba", ids, mask, 4, **options)
    for number, row in enumerate(tokens):
        idx = torch.cat([rows[number // 2], row[None, :-1]], dim=1)
        expected = model_of("mamba")(idx).logits[0, -4:].detach()
        torch.testing.assert_close(logits[number], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("records", [True, False])
@pytest.mark.parametrize("family", ["gpt2", "griffin", "mamba"])
def test_crop_leaves_no_trace(family: str, records: bool) -> None:
    idx, more = small(family).tokens(2, 8), small(family).tokens(2, 3, seed=1)
    mask = torch.ones_like(idx, dtype=torch.bool)
    mask[1, :2] = mask[1, 6:] = False  # cropping takes other numbers of tokens from each row
    past = DecodingCache()
    if records:
        past.activate_past_recording()
    forward = torch.no_grad()(wrapped(family).forward)
    forward(idx[:, :5], attention_mask=mask[:, :5], past_key_values=past)
    forward(idx[:, 5:], attention_mask=mask, past_key_values=past)
    past.crop(0)
    past.crop(-1)
    past.crop(-1)
    state_of = {row: group.state for group in past._groups for row in group.rows}
    assert (state_of[0] is not None) == records  # else all is read again
    found = forward(more, past_key_values=past).logits
    wanted = forward(
        torch.cat([idx[:, :6], more], dim=1), attention_mask=torch.nn.functional.pad(mask[:, :6], (0, 3), value=1)
    )
    torch.testing.assert_close(found, wanted.logits[:, 6:], rtol=1e-5, atol=1e-5)
    past.crop(-6)  # further back than any state that it keeps
    found = forward(more, past_key_values=past).logits
    wanted = forward(
        torch.cat([idx[:, :3], more], dim=1), attention_mask=torch.nn.functional.pad(mask[:, :3], (0, 3), value=1)
    )
    torch.testing.assert_close(found, wanted.logits[:, 3:], rtol=1e-5, atol=1e-5)


def test_crop_of_a_draft_does_not_read_the_prompt_again() -> None:
    past, idx = DecodingCache(), small("griffin").tokens(1, 8)
    past.activate_past_recording()
    with torch.no_grad():
        wrapped("griffin")(idx, past_key_values=past, logits_to_keep=3)
    past.crop(-2)
    assert past._groups[0].unread().tolist() == idx[:, 5:6].tolist()


def test_cache_can_be_copied_reordered_repeated_and_reset() -> None:
    forward, idx, more = torch.no_grad()(wrapped("griffin").forward), small("griffin").tokens(3, 5), torch.tensor([[1]])
    past = forward(idx).past_key_values
    expected = forward(more.expand(3, 1), past_key_values=copy.deepcopy(past)).logits
    assert past.get_seq_length() == 5
    picked = copy.deepcopy(past)
    picked.reorder_cache(torch.tensor([2, 0, 2]))
    torch.testing.assert_close(forward(more.expand(3, 1), past_key_values=picked).logits, expected[[2, 0, 2]])
    past.batch_repeat_interleave(2)
    assert past.batch_size == 6
    assert past
    found = forward(more.expand(6, 1), past_key_values=past).logits
    torch.testing.assert_close(found, expected.repeat_interleave(2, dim=0))
    past.reset()
    assert past.get_seq_length() == 0
    torch.testing.assert_close(forward(idx, past_key_values=past).logits, forward(idx).logits)


def test_cache_is_valid_where_gradients_are_on() -> None:
    idx = small("llama").tokens(2, 6)
    first = wrapped("llama")(idx[:, :4])
    assert first.logits.requires_grad
    second = wrapped("llama")(idx[:, 4:], past_key_values=first.past_key_values)
    torch.testing.assert_close(second.logits, model_of("llama")(idx).logits[:, 4:].detach(), rtol=1e-5, atol=1e-5)


def refusal(**arguments: Any) -> str:
    with pytest.raises(InputError) as error:
        wrapped("llama").forward(small("llama").tokens(2, 3), **arguments)
    return str(error.value)


def test_cache_refuses_what_would_be_wrong() -> None:
    past = wrapped("llama")(
        small("llama").tokens(2, 4), attention_mask=torch.tensor([[0, 1, 1, 1], [1] * 4])
    ).past_key_values
    assert "is a DynamicCache" in refusal(past_key_values=DynamicCache())
    assert "it must be (2, 7), earlier columns included" in refusal(
        past_key_values=past, attention_mask=torch.ones(2, 3)
    )
    assert "differs from the one" in refusal(past_key_values=past, attention_mask=torch.ones(2, 7))
    assert "position_ids must count" in refusal(past_key_values=past, position_ids=torch.tensor([[4, 5, 6]]))
    past.batch_select_indices([0])
    assert "input_ids has 2 rows, past_key_values has 1" in refusal(past_key_values=past)
    with pytest.raises(InputError, match="must be 0 or below"):
        past.crop(3)
    for kind in ("static", "quantized", "offloaded"):
        with pytest.raises(InputError, match=f"cache_implementation='{kind}'"):
            together("llama", torch.ones(1, 2).long(), torch.ones(1, 2), 1, cache_implementation=kind)
