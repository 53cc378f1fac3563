"""Conventions of the texts of a model, beside the tokens themselves, and the files of transformers that hold them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from lmzoo.data.chat import ChatFormat

CONFIG_FILE = "tokenizer_config.json"
GENERATION_FILE = "generation_config.json"
FILES = (CONFIG_FILE, GENERATION_FILE)
CLEAN_BPE = "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output"


@dataclass(frozen=True)
class Conventions:
    """Conventions of the texts of a model: special tokens, spaces of a decoded text, chats, and where a text ends."""

    split_special: bool = False  # the name of a special token in a text is plain text
    clean_up: bool = False  # spaces before punctuation are removed from a decoded text
    chat: ChatFormat = field(default_factory=ChatFormat)
    stop_tokens: tuple[int, ...] = ()  # each of them ends a generated text

    def files(self) -> dict[str, str]:
        """Returns the texts of the files that hold them, by name; none for the defaults."""
        config: dict[str, Any] = {**self.chat.tokens}
        if self.chat.templates:
            named = [{"name": name, "template": text} for name, text in self.chat.templates.items()]
            only = [*self.chat.templates] == ["default"]
            config["chat_template"] = self.chat.templates["default"] if only else named
        config |= {"split_special_tokens": True} if self.split_special else {}
        config |= {"clean_up_tokenization_spaces": True, CLEAN_BPE: True} if self.clean_up else {}
        found: dict[str, str] = {}
        if config:  # with the class that uses tokenizer.json as it is
            config = {"tokenizer_class": "TokenizersBackend", **config}
            found[CONFIG_FILE] = json.dumps(config, indent=1, ensure_ascii=False)
        if self.stop_tokens:
            found[GENERATION_FILE] = json.dumps({"eos_token_id": [*self.stop_tokens]}, indent=1)
        return found
