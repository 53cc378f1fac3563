"""The chat template that `lm_eval` applies to its requests: which one, the texts it makes, and their name in caches."""

from __future__ import annotations

import hashlib
import json
import warnings
from typing import Any

from lmzoo.data.chat import ChatFormat, Messages
from lmzoo.errors import DataError, InputError


class ChatTemplate:
    """A chat template of a model, at first the default one; `owner` is the path of the model, for messages of errors.

    Every method raises `InputError` if the model has no such template.
    """

    def __init__(self, chat: ChatFormat, owner: str) -> None:
        self._chat, self._owner = chat, owner
        self._name = "default"

    def choose(self, name: str) -> None:
        """Uses the template with this name from now on."""
        self._name = name
        self.source()

    def source(self) -> str:
        """Returns the template itself, a program of jinja2."""
        templates = self._chat.templates
        if not templates:
            raise InputError(
                f"--apply_chat_template needs a chat template, in chat_template.jinja or tokenizer_config.json: "
                f"{self._owner} has none"
            )
        if self._name not in templates:
            raise InputError(
                f"--apply_chat_template {self._name} must name a chat template of {self._owner}: {', '.join(templates)}"
            )
        return templates[self._name]

    def fingerprint(self) -> str:
        """Returns a name that is the same only where `render` makes the same text of the same messages."""
        parts = json.dumps([self.source(), {**self._chat.tokens}], sort_keys=True)
        return hashlib.sha256(parts.encode()).hexdigest()

    def render(self, messages: Messages, *, add_generation_prompt: bool) -> str:
        """Returns the text of a chat, up to where the answer begins, or else to the end of its last message.

        As in the adapter for transformers, system messages are left out, with a warning, if the template fails with
        them. Raises `DataError` if it also fails without them.
        """
        options: dict[str, Any] = {
            "chat_template": self.source(),
            "add_generation_prompt": add_generation_prompt,
            "continue_final_message": not add_generation_prompt,
        }
        try:
            return self._chat.render(messages, **options)
        except DataError as error:
            others = [message for message in messages if message["role"] != "system"]
            if not 0 < len(others) < len(messages):
                raise
            text = self._chat.render(others, **options)
            warnings.warn(f"system messages of requests are left out: {error}", stacklevel=2)
            return text
