"""Tests of chat templates in the harness: requests and results are those of the adapter for transformers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lm_eval
import pytest
import torch
from datasets import Dataset
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

import lmzoo
from lmzoo.data import train_tokenizer
from lmzoo.data.chat import ChatFormat
from lmzoo.errors import DataError, InputError
from lmzoo.harness.adapter import HarnessModel
from lmzoo.harness.chat import ChatTemplate
from tests.backbones.against_transformers import perturb
from tests.harness.test_adapter import TEXT, instances

# Begins with the token that the tokenizer also adds to a text.
TURNS = """{{ bos_token }}{% for message in messages %}<|{{ message.role }}|>
{{ message.content + eos_token }}{% endfor %}{% if add_generation_prompt %}<|assistant|>
{% endif %}"""
NO_SYSTEM = "{% for m in messages %}{{ raise_exception('no system') if m.role == 'system' else m.content }}{% endfor %}"
SYSTEM, USER = {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[HarnessModel, HFLM]:
    """A tiny chat model in our adapter, and in the adapter for transformers."""
    folder = tmp_path_factory.mktemp("chat")
    hf = Tokenizer.from_str(train_tokenizer("bpe:300", [TEXT]).to_json())
    hf.add_special_tokens(["<s>", "</s>", "<|user|>", "<|assistant|>", "<|system|>"])
    hf.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 300)])  # type: ignore[assignment]
    named = {"bos_token": "<s>", "eos_token": "</s>", "chat_template": TURNS}
    fast = PreTrainedTokenizerFast(tokenizer_object=hf, **named)
    sizes = {"vocab_size": 305, "n_positions": 160, "n_embd": 32, "n_layer": 2, "n_head": 2}
    torch.manual_seed(2)
    theirs = perturb(GPT2LMHeadModel(GPT2Config(bos_token_id=300, eos_token_id=301, **sizes)))
    with torch.no_grad():
        theirs.transformer.wte.weight[300:] *= 1.6  # so that the model writes special tokens
    theirs.save_pretrained(folder)
    fast.save_pretrained(folder)
    reference = HFLM(pretrained=theirs, tokenizer=fast, batch_size=2, max_length=160, device="cpu")
    return HarnessModel(folder, batch_size=3), reference


def samples(model: HarnessModel | HFLM, multiturn: bool) -> Mapping[str, Any]:
    """Runs a task of each kind on a model, with two examples, a description, and a system instruction."""
    rows = [{"q": f"It reads {word}", "c": [" one", " another"], "a": len(word) % 2} for word in TEXT.split()[1:5]]
    shared = {
        "custom_dataset": lambda **_: {"test": Dataset.from_list(rows)},
        "test_split": "test",
        "fewshot_split": "test",
        "num_fewshot": 2,
        "description": "Say how likely it is.",
        "doc_to_text": "{{q}}",
        "metadata": {"version": 1},
    }
    choose = {"output_type": "multiple_choice", "doc_to_choice": "{{c}}", "doc_to_target": "{{a}}"}
    settings = {"until": ["."], "max_gen_toks": 12}
    write = {"output_type": "generate_until", "doc_to_target": "{{c[a]}}", "generation_kwargs": settings}
    tasks = [
        {**shared, **choose, "task": "choose"},
        {**shared, **write, "task": "write", "gen_prefix": "Well,"},  # the answer begins within a message
    ]
    found = lm_eval.simple_evaluate(
        model,
        tasks=tasks,
        task_manager=TaskManager(include_defaults=False),
        apply_chat_template=True,
        system_instruction="Be brief.",
        fewshot_as_multiturn=multiturn,
        bootstrap_iters=0,
    )
    return found["samples"]


@pytest.mark.parametrize("multiturn", [True, False])
def test_chat_requests_and_results_equal_transformers(both: tuple[HarnessModel, HFLM], multiturn: bool) -> None:
    got, expected = (samples(model, multiturn) for model in both)
    for ours, theirs in zip(got["choose"] + got["write"], expected["choose"] + expected["write"], strict=True):
        assert ours["arguments"] == theirs["arguments"]
    context = got["write"][0]["arguments"][0][0]
    assert context.startswith("<s><|system|>\nBe brief.\n\nSay how likely it is.</s><|user|>\n")
    assert context.endswith("</s><|assistant|>\nWell,")
    assert context.count("<|user|>") == (3 if multiturn else 1)
    assert [both[0].tok_encode(context).count(token) for token in (300, 302)] == [1, context.count("<|user|>")]
    for ours, theirs in zip(got["choose"], expected["choose"], strict=True):
        sums = [[float(resps[0][0]) for resps in each["resps"]] for each in (ours, theirs)]
        assert sums[0] == pytest.approx(sums[1], abs=1e-4)
    assert [each["resps"] for each in got["write"]] == [each["resps"] for each in expected["write"]]


def test_chat_answers_have_no_special_tokens_as_in_transformers(both: tuple[HarnessModel, HFLM]) -> None:
    ours, theirs = both
    contexts = [
        ours.apply_chat_template([{"role": "user", "content": text}]) for text in ("It reads", "A model of", "none")
    ]
    settings = {"until": ["."], "max_gen_toks": 14}
    requests = instances("generate_until", *((context, settings) for context in contexts))
    texts = ours.generate_until(requests)
    assert texts == theirs.generate_until(requests, disable_tqdm=True)
    ids = torch.tensor([ours.tok_encode(contexts[0])])
    written = ours.model.generate(ids, 14, temperature=0)[0, ids.shape[1] :].tolist()
    assert 300 in written, "the test needs an answer with a special token"
    assert "<s>" not in "".join(texts)


def test_chat_template_of_a_name_is_rendered_and_names_the_requests(tmp_path: Path) -> None:
    tokenizer = train_tokenizer("byte", [""])
    model = lmzoo.create_model("bigram", vocab_size=256)
    model.save(tmp_path, tokenizer=tokenizer)
    ours = HarnessModel(tmp_path)
    with pytest.raises(InputError, match=r"^--apply_chat_template needs a chat template, in .*: .* has none$"):
        ours.chat_template(True)
    with pytest.raises(InputError, match=r"^--apply_chat_template needs a chat template"):
        ours.apply_chat_template([USER])
    ours._chat = ChatTemplate(ChatFormat({"default": "d{{ messages[0].content }}", "rag": "r"}), "x")
    assert (ours.chat_template(True), ours.apply_chat_template([USER])) == ("d{{ messages[0].content }}", "dHello")
    name = ours.tokenizer_name
    assert (ours.chat_template("rag"), ours.apply_chat_template([USER])) == ("r", "r")
    assert ours.tokenizer_name != name
    assert (ours.chat_template(True), ours.tokenizer_name) == ("d{{ messages[0].content }}", name)
    with pytest.raises(InputError, match=r"^--apply_chat_template rga must name a chat template of x: default, rag$"):
        ours.chat_template("rga")


def test_fingerprint_depends_on_the_template_and_its_special_tokens_alone() -> None:
    forms = [
        ChatFormat({"default": "a"}, {"bos_token": "<s>"}),
        ChatFormat({"default": "b"}, {"bos_token": "<s>"}),
        ChatFormat({"default": "a"}, {"bos_token": "<t>"}),
    ]
    names = [ChatTemplate(form, str(number)).fingerprint() for number, form in enumerate(forms)]
    assert len({*names}) == 3
    assert ChatTemplate(ChatFormat({"rag": "r", "default": "a"}, {"bos_token": "<s>"}), "y").fingerprint() == names[0]


def test_render_leaves_out_a_system_message_that_the_template_refuses() -> None:
    chat = ChatTemplate(ChatFormat({"default": NO_SYSTEM}), "x")
    with pytest.warns(UserWarning, match="system messages of requests are left out: the chat template fails: no syst"):
        text = chat.render([SYSTEM, USER], add_generation_prompt=True)
    assert text == "Hello"
    broken = ChatTemplate(ChatFormat({"default": "{{ raise_exception('never') }}"}), "x")
    for messages in ([SYSTEM, USER], [USER]):
        with pytest.raises(DataError, match="the chat template fails: never"):
            broken.render(messages, add_generation_prompt=True)
