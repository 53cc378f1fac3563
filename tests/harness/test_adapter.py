"""Tests of the adapter against the adapter of transformers on an imported checkpoint, and against direct sums."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.api.registry import get_model
from lm_eval.models.huggingface import HFLM
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

import lmzoo
from lmzoo.data import train_tokenizer
from lmzoo.errors import InputError
from lmzoo.generation import score
from lmzoo.harness.adapter import HarnessModel
from tests.backbones.against_transformers import perturb

TEXT = "A model of language says how likely a text is.\nIt reads tokens, one after another, and forgets none.\n" * 20
PAIRS = [
    ("A model of ", "language says"),
    ("It reads", " tokens"),
    ("", "It reads tokens"),  # no context: the prefix
    ("how likely a text is. " * 9, "It reads"),  # longer than the context of the model
    ("one after ", "another, and forgets none"),
]


def instances(kind: str, *arguments: tuple[Any, ...]) -> list[Instance]:
    return [Instance(request_type=kind, doc={}, arguments=each, idx=i) for i, each in enumerate(arguments)]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, HFLM]:
    """A tiny checkpoint of transformers, as a model of lmzoo on the disk, and in the adapter of transformers."""
    folder = tmp_path_factory.mktemp("harness")
    tokenizer = train_tokenizer("bpe:300", [TEXT])
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=300, n_positions=32, n_embd=32, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0)
    theirs = perturb(GPT2LMHeadModel(config))
    theirs.save_pretrained(folder / "theirs")
    tokenizer.save(folder / "theirs")
    lmzoo.load_model(folder / "theirs").save(folder / "ours", tokenizer=tokenizer)
    line_break = "\u010a"
    fast = PreTrainedTokenizerFast(tokenizer_file=str(folder / "theirs/tokenizer.json"), eos_token=line_break)
    return folder / "ours", HFLM(pretrained=theirs, tokenizer=fast, batch_size=2, max_length=32, device="cpu")


@pytest.mark.parametrize("batch_size", [1, 4])
def test_loglikelihood_equals_transformers(both: tuple[Path, HFLM], batch_size: int) -> None:
    ours = HarnessModel(both[0], batch_size=batch_size)
    requests = instances("loglikelihood", *PAIRS)
    got, expected = ours.loglikelihood(requests), both[1].loglikelihood(requests, disable_tqdm=True)
    for (our_sum, our_greedy), (their_sum, their_greedy) in zip(got, expected, strict=True):
        assert our_sum == pytest.approx(their_sum, abs=1e-4)
        assert our_greedy == their_greedy


def test_loglikelihood_says_what_greedy_decoding_gives(both: tuple[Path, HFLM]) -> None:
    ours = HarnessModel(both[0])
    prompt = "A model of"
    ids = torch.tensor([ours.tok_encode(prompt)])
    greedy = ours.model.generate(ids, 3, temperature=0)[0, ids.shape[1] :].tolist()
    other = [*greedy[:2], (greedy[2] + 1) % 300]
    (_, yes), (_, no) = ours._loglikelihood_tokens([(None, ids[0].tolist(), tail) for tail in (greedy, other)])
    assert yes
    assert not no


def test_loglikelihood_rolling_equals_transformers(both: tuple[Path, HFLM]) -> None:
    requests = instances("loglikelihood_rolling", (TEXT[:400],), ("It reads",))
    got = HarnessModel(both[0], batch_size=3).loglikelihood_rolling(requests)
    expected = both[1].loglikelihood_rolling(requests, disable_tqdm=True)
    assert got == pytest.approx(expected, abs=1e-3)


def test_generate_until_equals_transformers(both: tuple[Path, HFLM]) -> None:
    """With a context that must lose its beginning, and with a stop string that the text contains."""
    ours = HarnessModel(both[0], batch_size=2)
    contexts = ("A model of", "It", "one after another", *(TEXT[start : start + 150] for start in range(0, 60, 7)))
    free = instances("generate_until", *((text, {"until": ["\n"], "max_gen_toks": 8}) for text in contexts))
    whole = ours.generate_until(free)
    assert whole == both[1].generate_until(free, disable_tqdm=True)
    stop = whole[0][len(whole[0]) // 2 :][:2]
    requests = instances("generate_until", *((text, {"until": [stop, "\n"], "max_gen_toks": 8}) for text in contexts))
    got = ours.generate_until(requests)
    assert got == both[1].generate_until(requests, disable_tqdm=True)
    assert got[0] == whole[0].split(stop)[0] != whole[0]


def test_generate_until_honors_the_settings_of_a_task_or_refuses_them(both: tuple[Path, HFLM]) -> None:
    ours = HarnessModel(both[0])
    plain, penalized = (
        instances("generate_until", ("A model of", {"until": [], "max_gen_toks": 12, **more}))
        for more in ({}, {"repetition_penalty": 3.0, "top_p": 0.9, "num_beams": 1})
    )
    texts = ours.generate_until(penalized)
    assert texts == both[1].generate_until(penalized, disable_tqdm=True)
    assert texts != ours.generate_until(plain)
    beams = instances("generate_until", ("A model of", {"until": [], "num_beams": 4}))
    with pytest.raises(InputError, match=r"^num_beams=4 is not an option of generation"):
        ours.generate_until(beams)


@pytest.fixture(scope="module")
def special(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, HFLM]:
    """The same with a tokenizer that begins each text with <s>, and has </s> for its end."""
    folder = tmp_path_factory.mktemp("special")
    hf = Tokenizer.from_str(train_tokenizer("bpe:300", [TEXT]).to_json())
    hf.add_special_tokens(["<s>", "</s>"])
    hf.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 300)])  # type: ignore[assignment]
    fast = PreTrainedTokenizerFast(tokenizer_object=hf, bos_token="<s>", eos_token="</s>")
    sizes = {"vocab_size": 302, "n_positions": 32, "n_embd": 32, "n_layer": 2, "n_head": 2}
    torch.manual_seed(1)
    theirs = perturb(GPT2LMHeadModel(GPT2Config(bos_token_id=300, eos_token_id=301, **sizes)))
    theirs.save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder, HFLM(pretrained=theirs, tokenizer=fast, batch_size=2, max_length=32, device="cpu")


def test_special_tokens_of_an_imported_model_are_those_of_transformers(special: tuple[Path, HFLM]) -> None:
    folder, theirs = special
    ours = HarnessModel(folder)
    pairs = instances("loglikelihood", *PAIRS, ("<s>A model of", " language"))
    # lm_eval takes two pairs with the same tokens for one, also where their contexts end at different places.
    expected = [theirs.loglikelihood([pair], disable_tqdm=True)[0][0] for pair in pairs]
    assert [total for total, _ in ours.loglikelihood(pairs)] == pytest.approx(expected, abs=1e-4)
    texts = instances("loglikelihood_rolling", (TEXT[:300],), ("It reads",))
    assert ours.loglikelihood_rolling(texts) == pytest.approx(
        theirs.loglikelihood_rolling(texts, disable_tqdm=True), abs=1e-3
    )
    settings = {"until": ["."], "max_gen_toks": 8}
    prompts = instances("generate_until", ("A", settings), ("It reads", settings))
    whole = ours.generate_until(prompts)
    assert whole == theirs.generate_until(prompts, disable_tqdm=True)
    first = ours.zoo_tokenizer.encode_array(whole[0])[0].item()
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [301, first]}))
    assert HarnessModel(folder).generate_until(prompts)[0] == ""


def test_generate_until_stops_at_the_token_that_ends_a_text(both: tuple[Path, HFLM]) -> None:
    plain = HarnessModel(both[0])
    request = instances("generate_until", ("A model of", {"until": [], "max_gen_toks": 12}))
    (text,) = plain.generate_until(request)
    first = plain.tok_decode(plain.tok_encode(text)[:1])
    assert HarnessModel(both[0], eos=first).generate_until(request) == [""]


@pytest.mark.parametrize("family", ["gpt2", "mamba", "lstm"])
def test_batches_of_unequal_rows_equal_the_rows_alone(family: str, tmp_path: Path) -> None:
    model = lmzoo.create_model(family, vocab_size=256, d_model=16, n_layers=2, context_length=32)
    model.save(tmp_path / family, tokenizer=train_tokenizer("byte", [""]))
    ours = HarnessModel(tmp_path / family, batch_size=5)
    got = ours.loglikelihood(instances("loglikelihood", *PAIRS))
    for (context, continuation), (total, _greedy) in zip(PAIRS, got, strict=True):
        ids = torch.tensor([ours.tok_encode((context or "\n") + continuation)[-33:]])
        count = len(continuation) + len(context) - len(context.rstrip())  # lm_eval moves the last spaces
        assert total == pytest.approx(score(ours.model, ids)[0, -count:].sum().item(), abs=1e-4)


def test_adapter_is_known_to_lm_eval_and_refuses_a_prefix_of_two_tokens(both: tuple[Path, HFLM]) -> None:
    assert get_model("lmzoo") is HarnessModel
    with pytest.raises(InputError, match="prefix='zq' must be one token, not 2"):
        HarnessModel(both[0], prefix="zq")
    with pytest.raises(InputError, match="max_length=0 must be"):
        HarnessModel(both[0], max_length=0)


def test_batch_size_is_a_number_or_auto(both: tuple[Path, HFLM]) -> None:
    for given, most, expected in (("8", None, 8), ("auto", None, 16), ("auto:4", None, 16), ("auto", 4, 4)):
        assert HarnessModel(both[0], batch_size=given, max_batch_size=most).batch_size == expected
    for wrong in ("many", 0, "2.5"):
        with pytest.raises(InputError, match=f"batch_size={wrong!r} must be a positive integer"):
            HarnessModel(both[0], batch_size=wrong)
