"""Attention with a cap, ALiBi or sinks: its definition, decoding in pieces, and the sinks of gpt-oss."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import GptOssConfig
from transformers.models.gpt_oss.modeling_gpt_oss import eager_attention_forward

from lmzoo.layers.attention import Attention
from lmzoo.layers.context import Rope
from lmzoo.layers.scored_attention import ScoredAttention
from lmzoo.ops.scored_attention import alibi_slopes, naive_scored_attention
from tests.layers.decoded import context, in_one_call, in_pieces, perturbed, random

FORMS: dict[str, dict[str, Any]] = {
    "cap": {"cap": 0.5, "rope": Rope(), "n_kv_heads": 2},
    "alibi": {"alibi": True, "bias": True},
    "sinks, window": {"sinks": True, "rope": Rope(), "window": 3, "n_kv_heads": 1},
    "all": {"cap": 0.5, "alibi": True, "sinks": True, "window": 4},
}


@pytest.mark.parametrize("form", FORMS)
def test_scored_attention_equals_its_definition(form: str) -> None:
    layer, x = perturbed(ScoredAttention(12, 4, **FORMS[form])), random(2, 9, 12)
    q, k, v = layer.project(x, context(x))
    slopes_H = torch.tensor(alibi_slopes(4), dtype=torch.float64) if layer.alibi else None
    y = naive_scored_attention(q, k, v, window=layer.window, cap=layer.cap, slopes_H=slopes_H, sinks_H=layer.sinks)
    torch.testing.assert_close(in_one_call(layer, x), layer.out(y.flatten(2)))


@pytest.mark.parametrize("lengths", [(1,) * 9, (4, 1, 4)])
@pytest.mark.parametrize("form", FORMS)
def test_scored_attention_in_pieces_equals_one_call(form: str, lengths: tuple[int, ...]) -> None:
    layer, x = perturbed(ScoredAttention(12, 4, **FORMS[form])), random(2, 9, 12)
    torch.testing.assert_close(in_pieces(layer, x, *lengths), in_one_call(layer, x))


def test_scored_attention_sinks_equal_those_of_gpt_oss() -> None:
    """Compares the attention itself, given the same queries, keys, values and sinks."""
    layer, x = perturbed(ScoredAttention(12, 4, n_kv_heads=2, sinks=True)), random(2, 6, 12)
    q, k, v = layer.project(x, context(x))
    theirs = torch.nn.Module()
    theirs.sinks, theirs.num_key_value_groups, theirs.config = layer.sinks, 2, GptOssConfig()
    mask = torch.full((6, 6), float("-inf"), dtype=x.dtype).triu(1)[None, None]
    heads_first = (part.transpose(1, 2) for part in (q, k, v))
    expected, _ = eager_attention_forward(theirs.eval(), *heads_first, mask, scaling=3**-0.5)
    torch.testing.assert_close(layer.attend(q, k, v), expected)


def test_scored_attention_without_options_is_attention() -> None:
    generators = [torch.Generator().manual_seed(0) for _ in range(2)]
    plain, scored = Attention(12, 4), ScoredAttention(12, 4)
    for layer, generator in zip((plain, scored), generators, strict=True):
        for module in (layer.qkv, layer.out):
            module.init_parameters(generator)
    x = random(2, 5, 12)
    torch.testing.assert_close(in_one_call(scored.double(), x), in_one_call(plain.double(), x))
    assert not ScoredAttention(12, 4, sinks=True).get_parameter("sinks").any(), "each sink starts with the score 0"
    assert "sinks" not in dict(scored.named_parameters())
