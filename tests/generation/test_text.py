"""Tests of text generation: stop strings against a brute-force search, complete characters, clear errors."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import nn

import lmzoo
from lmzoo.data.pretrained import PretrainedTokenizer
from lmzoo.data.tokenizers import Tokenizer, train_tokenizer
from lmzoo.errors import DataError, InputError
from lmzoo.generation import generate
from lmzoo.generation.drafts import PromptLookup
from lmzoo.generation.text import StopMatcher, continue_texts, default_prompt, generate_text, generate_texts
from lmzoo.model import LanguageModel
from lmzoo.sampling import SamplingConfig
from tests.data.test_pretrained import byte_fallback
from tests.helpers import seeded

TEXT = "学而时习之，不亦说乎？ Ünïcödé 🙂🙃 and plain words. " * 3


def random_bigram(vocab_size: int, seed: int = 0) -> LanguageModel:
    model = lmzoo.create_model("bigram", vocab_size=vocab_size)
    nn.init.normal_(next(model.parameters()), std=2.0, generator=torch.Generator().manual_seed(seed))
    return model


def reciting(tokenizer: Tokenizer, text: str) -> LanguageModel:
    """A bigram model that generates exactly `text` when greedy; only the last token of the text may occur twice."""
    ids = tokenizer.encode(text)
    model = lmzoo.create_model("bigram", vocab_size=tokenizer.vocab_size)
    with torch.no_grad():
        next(model.parameters())[ids[:-1], ids[1:]] = 5.0
    return model


def brute_force(text: str, stops: list[str]) -> str:
    """The text before the first complete stop string, found one character at a time."""
    for end in range(len(text) + 1):
        complete = [stop for stop in stops if text[:end].endswith(stop)]
        if complete:
            return text[: end - max(map(len, complete))]
    return text


def test_stop_matcher_equals_brute_force_for_any_cuts() -> None:
    rng = random.Random(1)
    stopped = 0
    for _ in range(3000):
        text = "".join(rng.choices("ab", k=rng.randint(0, 12)))
        stops = ["".join(rng.choices("ab", k=rng.randint(1, 5))) for _ in range(rng.randint(0, 3))]
        matcher, pieces, rest = StopMatcher(stops), [], text
        while rest:
            size = rng.randint(1, 4)
            pieces.append(matcher.feed(rest[:size]))
            rest = rest[size:]
        out = "".join(pieces) + matcher.finish()
        assert out == brute_force(text, stops), (text, stops)
        assert matcher.found == any(stop in text for stop in stops)
        stopped += matcher.found
    assert 500 < stopped < 2500


def test_stop_matcher_finds_a_stop_string_that_overlaps_itself() -> None:
    matcher = StopMatcher(["aab"])
    assert [matcher.feed(char) for char in "aaab!"] == ["", "", "a", "", ""]
    assert matcher.found


def test_stop_matcher_holds_back_only_a_possible_stop_string() -> None:
    matcher = StopMatcher(["\n\n"])
    assert matcher.feed("one\n") == "one"
    assert matcher.feed("two") == "\ntwo"
    assert matcher.finish() == ""
    assert matcher.feed("\n") == ""
    assert matcher.finish() == "\n"


@pytest.mark.parametrize("spec", ["char", "byte", "bpe:280"])
def test_generate_text_equals_the_decoded_tokens_of_generate(spec: str) -> None:
    tokenizer = train_tokenizer(spec, [TEXT])
    model = random_bigram(tokenizer.vocab_size)
    for seed in range(5):
        pieces = list(generate_text(model, tokenizer, "学", 40, generator=seeded(seed)))
        idx = torch.tensor([tokenizer.encode("学")])
        tokens = generate(model, idx, 40, generator=seeded(seed))[0, idx.shape[1] :]
        assert "".join(pieces) == tokenizer.decode(tokens.tolist())
        assert "" not in pieces


def test_generate_text_yields_only_complete_characters() -> None:
    tokenizer = train_tokenizer("byte", [])
    recited = "a é习🙂"
    model = reciting(tokenizer, recited)
    new = len(recited.encode()) - 1
    pieces = list(generate_text(model, tokenizer, "a", new, SamplingConfig(0.0)))
    assert pieces == [" ", "é", "习", "🙂"]
    assert list(generate_text(model, tokenizer, "a", new - 1, SamplingConfig(0.0)))[-1] == "\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize("spec", ["char", "byte", "bpe:280"])
def test_generate_text_ends_at_stop_strings_across_tokens(spec: str) -> None:
    tokenizer = train_tokenizer(spec, [TEXT])
    model = random_bigram(tokenizer.vocab_size)
    plain = "".join(generate_text(model, tokenizer, "w", 60, generator=seeded(3)))
    stop = plain[9:13]
    pieces = list(generate_text(model, tokenizer, "w", 60, stop=[stop, "never said"], generator=seeded(3)))
    assert "".join(pieces) == brute_force(plain, [stop]) != plain
    alone = generate_text(model, tokenizer, "w", 60, stop=stop, generator=seeded(3))  # one string, not its characters
    assert "".join(alone) == "".join(pieces)


def test_generate_text_computes_nothing_after_a_stop_string() -> None:
    tokenizer = train_tokenizer("char", ["abcdefgh"])
    model = reciting(tokenizer, "abcdefgh")
    read: list[int] = []
    next(iter(model.children())).register_forward_pre_hook(lambda _, args: read.append(args[0].numel()))
    assert "".join(generate_text(model, tokenizer, "a", 7, SamplingConfig(0.0), stop="cd")) == "b"
    assert read == [1, 1, 1]


def test_generate_text_ends_before_a_stop_token() -> None:
    tokenizer = train_tokenizer("char", ["abcd."])
    model = reciting(tokenizer, "abcd.")
    dot = tokenizer.encode(".")
    assert "".join(generate_text(model, tokenizer, "a", 9, SamplingConfig(0.0), stop_tokens=dot)) == "bcd"
    held = generate_text(model, tokenizer, "a", 9, SamplingConfig(0.0), stop="d!", stop_tokens=dot)
    assert "".join(held) == "bcd"


def test_generate_texts_equals_each_text_alone() -> None:
    tokenizer = train_tokenizer("byte", [])
    model = random_bigram(256)
    stops, stop_tokens = [" ", "ab"], list(range(200, 208))
    texts = generate_texts(model, tokenizer, "w", 6, 90, stop=stops, stop_tokens=stop_tokens, generator=seeded(1))
    one = seeded(1)
    alone = [
        "".join(generate_text(model, tokenizer, "w", 90, stop=stops, stop_tokens=stop_tokens, generator=one))
        for _ in range(6)
    ]
    assert texts == alone
    assert len(set(map(len, texts))) > 2, "the test needs texts that end at different places"
    with pytest.raises(InputError, match="n_samples=0"):
        generate_texts(model, tokenizer, "w", 0, 5)


def test_continue_texts_equals_each_prompt_alone() -> None:
    """Greedy, with prompts of 1 to 40 tokens: the longer ones are still read while the others have begun to write."""
    tokenizer = train_tokenizer("byte", [])
    model, greedy = random_bigram(256), SamplingConfig(temperature=0)
    prompts = ["w", "another one", "z" * 40, "q"]
    ids = [tokenizer.encode(prompt) for prompt in prompts]
    alone = ["".join(generate_text(model, tokenizer, prompt, 12, greedy)) for prompt in prompts]
    assert continue_texts(model, tokenizer, ids, 12, greedy) == alone
    stop, token = alone[0][3], tokenizer.encode(alone[1])[2]
    options: dict[str, Any] = {"stop": [stop], "stop_tokens": [token]}
    alone = ["".join(generate_text(model, tokenizer, prompt, 12, greedy, **options)) for prompt in prompts]
    assert continue_texts(model, tokenizer, ids, 12, greedy, **options) == alone
    assert len({*map(len, alone)}) > 1, "the test needs texts that end at different places"


def test_continue_texts_leaves_out_special_tokens_and_stops_at_their_names() -> None:
    tokenizer = PretrainedTokenizer(byte_fallback(), "{}")  # with the special tokens <s> and </s>
    vocab = tokenizer._hf.get_vocab()
    model, greedy = lmzoo.create_model("bigram", vocab_size=tokenizer.vocab_size), SamplingConfig(temperature=0)
    chain = [vocab[name] for name in ("H", "e", "<s>", "l", "</s>", "o")]
    with torch.no_grad():
        next(model.parameters())[chain[:-1], chain[1:]] = 5.0
    written = [
        continue_texts(model, tokenizer, [chain[:1]], 5, greedy, **options)
        for options in ({}, {"stop": ["</s>"]}, {"stop": ["el"]}, {"stop_tokens": [chain[3]]})
    ]
    assert written == [["elo"], ["el"], [""], ["e"]]


def test_generate_texts_ends_with_the_last_text() -> None:
    tokenizer = train_tokenizer("char", ["abcdefgh"])
    model = reciting(tokenizer, "abcdefgh")
    read: list[int] = []
    next(iter(model.children())).register_forward_pre_hook(lambda _, args: read.append(args[0].numel()))
    assert generate_texts(model, tokenizer, "a", 2, 7, SamplingConfig(0.0), stop="cd") == ["b", "b"]
    assert read == [1, 2, 2]


def test_generate_text_with_a_draft_is_the_same_when_greedy() -> None:
    tokenizer = train_tokenizer("char", ["abcdefgh."])
    model = reciting(tokenizer, "abcdefgh.")
    for draft in (model, PromptLookup(tokenizer.vocab_size)):
        pieces = generate_text(model, tokenizer, "a", 9, SamplingConfig(0.0), stop="fg", draft=draft)
        assert list(pieces) == ["b", "c", "d", "e"]
        dot = tokenizer.encode(".")
        pieces = generate_text(model, tokenizer, "a", 20, SamplingConfig(0.0), stop_tokens=dot, draft=draft)
        assert "".join(pieces) == "bcdefgh"


def test_generate_text_refuses_bad_input_immediately() -> None:
    tokenizer = train_tokenizer("char", ["abc"])
    model = random_bigram(3)
    with pytest.raises(InputError, match="the prompt is empty"):
        generate_text(model, tokenizer, "", 5)
    with pytest.raises(InputError, match="stop holds an empty string"):
        generate_text(model, tokenizer, "a", 5, stop=["b", ""])
    with pytest.raises(InputError, match="stop holds an empty string"):
        generate_text(model, tokenizer, "a", 5, stop="")
    with pytest.raises(InputError, match="vocab_size=9, the tokenizer only 3"):
        generate_text(random_bigram(9), tokenizer, "a", 5)
    with pytest.raises(DataError, match="'x'"):
        generate_text(model, tokenizer, "ax", 5)
    with pytest.raises(InputError, match="max_new_tokens=-1"):
        generate_text(model, tokenizer, "a", -1)
    with pytest.raises(InputError, match="tokenizer=None must be a tokenizer"):
        generate_text(model, None, "a", 5)  # type: ignore[arg-type]
    for ends in (None, torch.tensor(1), [3]):
        with pytest.raises(InputError, match=r"^stop_tokens"):
            generate_text(model, tokenizer, "a", 5, stop_tokens=ends)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="stop=tensor"):
        generate_text(model, tokenizer, "a", 5, stop=torch.tensor(1))  # type: ignore[arg-type]


@pytest.mark.parametrize(("text", "prompt"), [("a b\nc", "\n"), ("b c", " "), ("cab", "a")])
def test_default_prompt_is_known_to_the_tokenizer(text: str, prompt: str) -> None:
    tokenizer = train_tokenizer("char", [text])
    assert default_prompt(tokenizer) == prompt
    assert default_prompt(train_tokenizer("byte", [text])) == "\n"


@pytest.mark.parametrize("n_samples", [1, 2])
def test_generate_text_keeps_the_space_after_a_prompt(n_samples: int) -> None:
    """SentencePiece removes a space at the beginning of a text: new text is none. Token ids are a prompt, too."""
    tokenizer = PretrainedTokenizer(byte_fallback(), "{}")
    model = lmzoo.create_model("bigram", vocab_size=tokenizer.vocab_size)
    word = int(tokenizer.encode_array("a")[0])  # "▁a"
    with torch.no_grad():
        for table in model.parameters():
            table.zero_()[:, word] = 1.0
    config = SamplingConfig(temperature=0.0)
    for prompt in ("Hello", tokenizer.encode("Hello")):
        if n_samples == 1:
            assert "".join(generate_text(model, tokenizer, prompt, 2, config)) == " a a"
        else:
            assert generate_texts(model, tokenizer, prompt, n_samples, 2, config) == [" a a"] * n_samples
    with pytest.raises(InputError, match="must hold token ids"):
        generate_text(model, tokenizer, ["a"], 2)  # pyrefly: ignore[bad-argument-type]
