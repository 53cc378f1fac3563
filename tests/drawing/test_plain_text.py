"""Tests of `lmzoo.drawing.plain_text`: the printed drawing, in a terminal of any width."""

from __future__ import annotations

import re
from typing import Any

import pytest
from torch import nn

from lmzoo.drawing import draw, text
from lmzoo.layers.mlp import MLP
from lmzoo.layers.norm import LayerNorm, RMSNorm
from lmzoo.layers.stack import Residual, Stack
from tests.cases import each_case
from tests.drawing.models import (
    MODELS,
    Looped,
    Nested,
    Words,
    drawing_of,
    make,
    plain,
    words,
)


@each_case("name", MODELS)
def test_text_fits_the_terminal_in_plain_characters(name: str) -> None:
    drawing = drawing_of(name)
    for width in (80, 100, 140):
        lines = text(drawing, width).splitlines()
        assert max(map(len, lines)) <= min(width, 100)
        assert all(line == line.rstrip() and line.isascii() for line in lines)
        assert not [line for line in lines if re.fullmatch(r"[| ]+[-\d, ]+", line)], (
            "costs without a name in their line"
        )


def test_text_of_a_narrow_terminal_keeps_everything() -> None:
    drawing = draw(make("llama.1m"))
    wide, narrow = (set(text(drawing, width).split()) for width in (100, 20))
    assert {word for word in wide if "-" not in word} <= narrow


LLAMA = """\
llama, T = 128                              parameters  FLOPs/token  state bytes
tokens  Embedding (65 x 128)                     8,320            -            -
+- 5 x -------------------------------------------------------------------------
|  block                                       184,576      434,176       65,536
|    +-> RMSNorm -> Attention ->+               49,280      163,840       65,536
|        4 heads, 2 key/value heads,
|        head width 32, rotary positions
|    +-> RMSNorm -> MLP ->+                    135,296      270,336            -
|        gated, silu, inner width 352
+-------------------------------------------------------------------------------
norm    RMSNorm                                    128            -            -
head    Linear (128 to 65)                       8,320       16,640            -
total                                          939,648    2,187,520      327,680
"""
GPT2 = """\
gpt2, T = 64                                parameters  FLOPs/token  state bytes
tokens     Embedding (65 x 64)                   4,160            -            -
positions  Embedding (64 x 64)                   4,096            -            -
+- 2 x -------------------------------------------------------------------------
|  Block (gelu_tanh)                            49,984      114,688       32,768
|    norm_1     LayerNorm                          128            -            -
|    attention  Attention                       16,640       49,152       32,768
|                 4 heads, head width 16
|    norm_2     LayerNorm                          128            -            -
|    up         Linear (64 to 256)              16,640       32,768            -
|    down       Linear (256 to 64)              16,448       32,768            -
+-------------------------------------------------------------------------------
norm       LayerNorm                               128            -            -
head       TiedHead                                  -        8,320            -
             64 to 65,
             weights of the embedding
state      token ids                                 -            -          512
             for a sliding window
total                                          108,352      237,696       66,048
"""
MAMBA = """\
mamba, T = 64                               parameters  FLOPs/token  state bytes
tokens  Embedding (65 x 64)                      4,160            -            -
+- 3 x -------------------------------------------------------------------------
|  +-> RMSNorm -> Mamba ->+                     32,704       68,608        9,728
|      16 states per channel
+-------------------------------------------------------------------------------
norm    RMSNorm                                     64            -            -
head    TiedHead                                     -        8,320            -
          64 to 65,
          weights of the embedding
total                                          102,336      214,144       29,184
"""
LSTM = """\
lstm, T = 64                                parameters  FLOPs/token  state bytes
tokens  Embedding (65 x 72)                      4,680            -            -
+- 2 x -------------------------------------------------------------------------
|  LSTM                                         41,760       82,944          576
|  Dropout (0.3)                                     -            -            -
+-------------------------------------------------------------------------------
head    Linear (72 to 65)                        4,745        9,360            -
total                                           92,945      175,248        1,152
"""
EXPECTED = {"llama.1m": LLAMA, "gpt2.tiny": GPT2, "mamba.tiny": MAMBA, "lstm.tiny": LSTM}


@pytest.mark.parametrize("name", EXPECTED)
def test_text_shows_the_architecture(name: str) -> None:
    assert text(draw(make(name, **({"dropout": 0.3} if name == "lstm.tiny" else {})))) == EXPECTED[name]


PATTERN = """\
Words, T = 32                                         parameters  FLOPs/token  state bytes
tokens  Embedding (65 x 16)                                1,040            -            -
+- 2 x -----------------------------------------------------------------------------------
|  +- 2 x --------------------------------------------------------------------------------
|  |  block                                                4,544        9,856        2,432
|  |    +-> RMSNorm -> Mamba -> RMSNorm ->+                3,392        7,552        2,432
|  |        16 states per channel
|  |    +-> MLP ->+                                        1,152        2,304            -
|  |        gated, silu, inner width 24
|  +--------------------------------------------------------------------------------------
|  +- 1 x --------------------------------------------------------------------------------
|  |  block                                                1,600        5,120        2,048
|  |    +-> LayerNorm -> Attention ----+                     800        3,584        2,048
|  |    |   2 heads, 1 key/value head, |
|  |    |   head width 8,              |
|  |    |   rotary in 25 % of a head   |
|  |    +-> LayerNorm -> MLP ----------+->+                  800        1,536            -
|  |        silu, inner width 24
|  +--------------------------------------------------------------------------------------
+-----------------------------------------------------------------------------------------
+- 1 x -----------------------------------------------------------------------------------
|  block                                                   4,544        9,856        2,432
|    +-> RMSNorm -> Mamba -> RMSNorm ->+                   3,392        7,552        2,432
|        16 states per channel
|    +-> MLP ->+                                           1,152        2,304            -
|        gated, silu, inner width 24
+-----------------------------------------------------------------------------------------
norm    RMSNorm                                               16            -            -
head    Linear (16 to 65)                                  1,040        2,080            -
total                                                     28,016       61,600       16,256
"""


def test_text_shows_periods_and_parallel_branches() -> None:
    assert text(draw(words("mmp", 7)), 90) == PATTERN


def test_text_adds_layers_side_by_side() -> None:
    assert "+-> RMSNorm -> (Attention + MLP) ->+" in text(draw(words("b", 1)))


def test_text_shows_loops_other_modules_and_the_rest() -> None:
    assert "\n+- runs 3 times per token ---" in text(draw(words("a", 2, Looped)))
    assert "\n  |  +-> RMSNorm -> Attention ->+ " in text(draw(words("a", 1, Nested)))
    assert "\nother  " in text(draw(plain())), "parameters that no part has"


def test_text_shows_branches_inside_branches_in_parentheses() -> None:
    class Inside(Words):
        def block(self, config: Any, layer: int) -> nn.Module:
            inner = Stack([Residual(RMSNorm(16), MLP(16, 24)), MLP(16, 24)])
            return Residual(LayerNorm(16), Stack([inner, super().block(config, layer)]))

    lines = text(draw(words("p", 1, Inside)), 100).splitlines()
    assert lines[3].startswith("|  +-> LayerNorm -> (x + RMSNorm -> MLP) -> MLP   ")
    assert lines[4] == "|      -> (x + LayerNorm -> Attention + LayerNorm -> MLP) ->+"
    assert lines[7] == "|      Attention: 2 heads, 1 key/value head, head width 8,"


def test_text_puts_costs_below_a_label_that_is_too_long() -> None:
    class AMixerWithAVeryLongNameThatFillsTheLine(MLP):
        pass

    class Long(Words):
        def block(self, config: Any, layer: int) -> nn.Module:
            return Residual(None, AMixerWithAVeryLongNameThatFillsTheLine(16, 24))

    lines = text(draw(words("a", 1, Long))).splitlines()
    row = next(i for i, line in enumerate(lines) if "AMixer" in line)
    assert lines[row].endswith("ThatFillsTheLine ->+")
    assert lines[row + 1].split() == ["|", "1,152", "2,304", "-"]
    assert len(lines[row + 1]) == len(lines[0])
