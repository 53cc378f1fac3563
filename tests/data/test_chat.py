"""Tests that chat templates give the text of transformers, and that no template takes time or memory without end."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from lmzoo.data import chat, chat_worker
from lmzoo.data.chat import ChatFormat
from lmzoo.data.tokenizers import load_tokenizer, train_tokenizer
from lmzoo.errors import DataError
from tests.data.published import byte_level, save

LLAMA3 = """{{- bos_token }}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start|>system<|end|>\\n\\n" }}
{%- if tools is not none %}{%- for t in tools %}{{ t | tojson(indent=4) }}{% endfor %}{% endif %}
{{- system_message }}{{- "<|eot|>" }}
{%- for message in messages %}
    {%- if 'tool_calls' in message %}
        {%- set call = message.tool_calls[0].function %}
        {{- '{"name": "' + call.name + '", "parameters": ' }}{{- call.arguments | tojson }}{{- "}" }}
    {%- else %}
        {{- '<|start|>' + message['role'] + '<|end|>\\n\\n'+ message['content'] | trim + '<|eot|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start|>assistant<|end|>\\n\\n' }}
{%- endif %}
"""
CHATML = """{% for message in messages %}
{% if loop.first and message['role'] != 'system' %}{{ '<|im_start|>system\\nBe brief.<|im_end|>\\n' }}{% endif %}
{% if message.role == 'assistant' %}{{ '<|im_start|>assistant\\n' }}
    {% generation %}{{ message.content + '<|im_end|>' }}{% endgeneration %}
{% else %}{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' }}{% endif %}
{{ '\\n' }}
{% endfor %}
{%- if enable_thinking is defined and enable_thinking is false %}{{ '<think></think>' }}{% endif %}
{%- for m in messages %}{% if m.reasoning_content %}{{ m.reasoning_content }}{% endif %}{% endfor %}
{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""
MISTRAL = """{%- set ns = namespace(index=0, role=none) %}
{{- bos_token }}
{%- for message in messages if message.role != 'note' %}
    {%- if message.role == 'stop' %}{% break %}{% endif %}
    {%- if message.role == ns.role %}
        {{- raise_exception('After the optional system message, roles must alternate') }}
    {%- endif %}
    {%- set ns.role = message.role %}{%- set ns.index = ns.index + 1 %}
    {%- if message.role == 'user' %}{{ '[INST] ' + message.content + ' [/INST]' }}
    {%- else %}{{ ' ' + message.content|string + eos_token }}{% endif %}
{%- endfor %}{{ ns.index }}{{ dict(a=1) | tojson }}{{ dict.fromkeys('a') }}"""
GEMMA = """{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'assistant') %}{% set role = 'model' %}
{% else %}{% set role = message['role'] %}{% endif %}{{ '<turn>' + role + '\n' }}
{%- if message.content is string %}{{ message.content | trim }}
{%- else %}{% for part in message.content %}{{ part.text }}{% endfor %}{% endif %}{{ '<end>\n' }}{% endfor %}
{%- if add_generation_prompt %}{{'<turn>model\n'}}{% endif %}{{ strftime_now('%Y') }}"""
TEMPLATES = {"llama 3": LLAMA3, "chatml": CHATML, "mistral": MISTRAL, "gemma": GEMMA}
USER = {"role": "user", "content": " Hello, 中文 <b> & 'x' "}
TALK = [{"role": "system", "content": "Be kind."}, USER, {"role": "assistant", "content": "Hi\u2028 \U0001f600"}, USER]
THOUGHT = [USER, {"role": "assistant", "content": "Yes.", "thinking": "Well", "tool_calls": None}]
PARTS = [{"role": "user", "content": [{"type": "text", "text": "See "}, {"type": "text", "text": "here"}]}]
TOOLS = [{"name": "add", "parameters": {"b": [1, 2.5], "ä": "<>"}}]
CALL = {"role": "assistant", "tool_calls": [{"function": {"name": "add", "arguments": {"z": "ü", "a": None}}}]}
CASES: list[tuple[str, list[dict[str, Any]], dict[str, Any]]] = [
    *((name, TALK, {"add_generation_prompt": flag}) for name in TEMPLATES for flag in (False, True)),
    ("llama 3", [*TALK, CALL], {"tools": TOOLS}),
    ("llama 3", THOUGHT, {}),
    ("chatml", THOUGHT, {"enable_thinking": False, "add_generation_prompt": True}),
    ("mistral", [USER, {"role": "stop"}], {"bos_token": "<B>"}),
    ("gemma", PARTS, {"add_generation_prompt": True}),
    ("gemma", PARTS, {"continue_final_message": True}),
    ("gemma", [USER], {"continue_final_message": True}),
    ("chatml", THOUGHT, {"continue_final_message": True}),
]
CONFIG = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "<|im_end|>"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    place = tmp_path_factory.mktemp("chat")
    make = byte_level(llama3=True)
    return {name: save(place / name, make, "llama", {**CONFIG, "chat_template": TEMPLATES[name]}) for name in TEMPLATES}


@pytest.mark.parametrize("number", range(len(CASES)))
def test_apply_chat_template_equals_transformers(number: int, folders: Mapping[str, Path]) -> None:
    name, messages, options = CASES[number]
    theirs, ours = AutoTokenizer.from_pretrained(folders[name]), load_tokenizer(folders[name])
    text = theirs.apply_chat_template(messages, tokenize=False, **options)
    assert ours.apply_chat_template(messages, tokenize=False, **options) == text
    if number < 2:
        assert (
            ours.apply_chat_template(messages, **options)
            == theirs.apply_chat_template(messages, **options)["input_ids"]
        )


def test_render_takes_a_named_template_or_a_given_one() -> None:
    form = ChatFormat({"default": "d", "tool_use": "t{{ tools[0].name }}", "rag": "r"})
    assert form.render([USER]) == "d"
    assert form.render([USER], tools=TOOLS) == "tadd"
    assert form.render([USER], chat_template="rag") == "r"
    assert form.render([USER], chat_template="{{ 1 + 1 }}") == "2"


ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
LIMIT = "takes more than 0.3 s of CPU time, or more than 537 MB of memory"
BAD = {
    "endless": (ENDLESS, LIMIT),
    "endless in C": (
        "{{ ('a' * 30000 ~ 'b') | replace('a', 'a' * 30000) | wordwrap(1) | length }}",
        "memory|takes more",
    ),
    "memory": ("{{ 'a' * 2000000000 }}", "needs too much memory"),
    "memory by parts": (
        "{% set ns = namespace(x='ab') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
        "memory",
    ),
    "power": ("{{ 9 ** (9 ** 9) }}", LIMIT),
    "long text": (
        "{% for i in range(9999) %}{{ 'a' * 1000 }}{% endfor %}",
        "its text has more than 4194304 characters",
    ),
    "wide number": ("{{ '%2000000000d' % 1 }}", "memory"),
    "nested": ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "is nested too deeply"),
    "long": ("a" * (1 << 18) + "b", "has 262145 characters: at most 262144 are read"),
    "syntax": ("a\n{% if %}", "is wrong in line 2"),
    "refuses": ("{{ raise_exception('no\nsystem role') }}", "fails: no"),
    "undefined": ("{{ nothing.at.all }}", "fails: 'nothing' is undefined"),
    "attribute": (
        "{{ messages.__class__.__mro__ }}",
        "fails: access to attribute '__class__' of 'list' object is unsafe",
    ),
    "mutation": ("{{ messages.append(1) }}", "is not safely callable|unsafe"),
    "namespace": ("{{ namespace(__init__=1) }}", "must not begin with an underscore"),
    "include": ("{% include '/etc/passwd' %}", "no loader"),
    "division": ("{{ 1 // 0 }}", "fails: ZeroDivisionError"),
}


@pytest.mark.parametrize("case", BAD)
def test_render_refuses_bad_templates_in_one_line(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat, "_SECONDS", 0.3)
    template, message = BAD[case]
    start = time.perf_counter()
    with pytest.raises(DataError, match=message) as caught:
        ChatFormat({"default": template}).render([USER])
    assert "\n" not in str(caught.value)
    assert time.perf_counter() - start < chat._PATIENCE / 2, "ended by the limits, not by waiting"


def test_render_ends_a_process_that_waits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "waits.py"
    program.write_text("import time; time.sleep(60)")
    monkeypatch.setattr(chat_worker, "__file__", str(program))
    monkeypatch.setattr(chat, "_PATIENCE", 0.2)
    with pytest.raises(DataError, match=r"is not rendered within 0\.2 s: the machine is too busy"):
        ChatFormat({"default": "a"}).render([USER])


def test_render_counts_only_the_time_in_which_the_template_computes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """On a busy machine the process waits for a CPU, which is no fault of the template."""
    program = tmp_path / "waits.py"
    program.write_text(
        "import runpy, signal, time\n"
        "start = signal.setitimer\n"
        "signal.setitimer = lambda *given: (start(*given), time.sleep(0.6))\n"
        f"runpy.run_path({chat_worker.__file__!r}, run_name='__main__')\n"
    )
    monkeypatch.setattr(chat_worker, "__file__", str(program))
    monkeypatch.setattr(chat, "_SECONDS", 0.5)
    assert ChatFormat({"default": "a"}).render([USER]) == "a"


def test_render_refuses_bad_messages() -> None:
    form = ChatFormat({"default": "{{ messages }}"})
    for messages in ("Hello", [], ["Hello"], None, {"role": "user"}):
        with pytest.raises(DataError, match="messages must be a list of objects such as"):
            form.render(messages)  # pyrefly: ignore[bad-argument-type]
    with pytest.raises(DataError, match=r"must be JSON: .*Path"):
        form.render([{"role": "user", "content": Path("a")}])
    with pytest.raises(DataError, match="exclude each other"):
        form.render([USER], add_generation_prompt=True, continue_final_message=True)
    with pytest.raises(DataError, match="the last message has no text to continue"):
        form.render([{"role": "user", "content": []}], continue_final_message=True)
    with pytest.raises(DataError, match="changes the text of the last message"):
        ChatFormat({"default": "no"}).render([USER], continue_final_message=True)


def test_render_names_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"^the tokenizer has no chat template$"):
        train_tokenizer("byte", ["a"]).apply_chat_template([USER])
    with pytest.raises(DataError, match="name one of rag"):
        ChatFormat({"rag": "r"}).render([USER])
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(DataError, match=r"need the package jinja2: pip install 'lmzoo\[chat\]'"):
        ChatFormat({"default": "d"}).render([USER])


def test_render_gives_the_time_of_this_place_and_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    hours = []
    for zone in ("UTC+1", "UTC-1"):
        monkeypatch.setenv("TZ", zone)
        hours.append(int(ChatFormat({"default": "{{ strftime_now('%H') }}"}).render([USER])))
    assert (hours[1] - hours[0]) % 24 in (2, 3)  # 3 if an hour ends between the two
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    seen: list[Mapping[str, str]] = []
    run = subprocess.run
    monkeypatch.setattr(
        subprocess, "run", lambda *words, **options: (seen.append(options["env"]), run(*words, **options))[1]
    )
    ChatFormat({"default": "a"}).render([USER])
    assert [*seen[0]] == ["TZ"]
