"""Tests of the files that keep how the texts of a model are written."""

from __future__ import annotations

import json

from lmzoo.data.chat import ChatFormat
from lmzoo.data.conventions import CLEAN_BPE, Conventions


def test_conventions_files_hold_what_differs_from_the_defaults() -> None:
    assert Conventions().files() == {}
    assert Conventions(stop_tokens=(3, 5)).files() == {
        "generation_config.json": '{\n "eos_token_id": [\n  3,\n  5\n ]\n}'
    }
    chat = ChatFormat({"default": "中"}, {"bos_token": "<s>"})
    config = json.loads(Conventions(split_special=True, clean_up=True, chat=chat).files()["tokenizer_config.json"])
    assert config == {
        "tokenizer_class": "TokenizersBackend",
        "bos_token": "<s>",
        "chat_template": "中",
        "split_special_tokens": True,
        "clean_up_tokenization_spaces": True,
        CLEAN_BPE: True,
    }


def test_conventions_files_hold_several_templates_by_name() -> None:
    files = Conventions(chat=ChatFormat({"default": "a", "rag": "b"})).files()
    named = [{"name": "default", "template": "a"}, {"name": "rag", "template": "b"}]
    assert json.loads(files["tokenizer_config.json"])["chat_template"] == named
