"""Tests that the classes and model types known here are those of transformers."""

from __future__ import annotations

import transformers
from transformers.models.auto import tokenization_auto

from lmzoo.data.tokenizer_classes import CORRECTED, OF_MODEL_TYPE, REBUILT, REFUSED, class_name
from lmzoo.hf.architectures import ARCHITECTURES

# The base class, the choice by name, and parts of other tokenizers.
NO_CLASSES = {"PreTrained", "Auto", "Basic", "Character", "Mecab", "Wordpiece", "Pop2Piano"}


def test_tokenizer_classes_are_those_of_transformers() -> None:
    """Each class of its own is followed or refused; all others stand for a tokenizer.json that is used as it is."""
    theirs = {name for name in tokenization_auto.TOKENIZER_MAPPING_NAMES.values() if name} | {*dir(transformers)}
    theirs = {name.removesuffix("Fast") for name in theirs}
    own = {name.removesuffix("Tokenizer") for name in theirs if name.endswith("Tokenizer")}
    followed = {name.removesuffix("Tokenizer") for name in REBUILT}
    assert own - followed - REFUSED == NO_CLASSES
    assert {*REBUILT} <= theirs
    assert REFUSED - own == {"Electra", "LayoutLM", "Longformer"}, "names that transformers knows and does not list"


def test_class_name_knows_every_model_type_of_transformers() -> None:
    """And each that lmzoo loads has a class that is followed, but for one that does not read tokenizer.json."""
    theirs = {
        model_type: name.removesuffix("Fast").replace("MistralCommonBackend", "TokenizersBackend")
        for model_type, name in tokenization_auto.TOKENIZER_MAPPING_NAMES.items()
        if name and model_type.islower()
    }
    followed = {*REBUILT, "TokenizersBackend"}
    assert {key: name for key, name in theirs.items() if name in followed} == OF_MODEL_TYPE
    assert {theirs[key] for key in ARCHITECTURES if key in theirs} - followed == {"BioGptTokenizer"}
    assert tokenization_auto.MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS == CORRECTED


def test_class_name_for_a_byte_level_llama_is_none() -> None:
    assert class_name("llama", "LlamaTokenizerFast", byte_level=True) is None
    assert class_name("llama", "LlamaTokenizerFast", byte_level=False) == "LlamaTokenizer"
    assert class_name("llama", "BertTokenizerFast", byte_level=False) == "BertTokenizer"
    assert class_name("qwen2", "LlamaTokenizer", byte_level=True) == "Qwen2Tokenizer"
