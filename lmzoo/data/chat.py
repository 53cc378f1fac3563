"""Chat templates: a list of messages becomes the text that a chat model continues, as in transformers.

A template is a program of strangers in the language of jinja2, an optional package. It is rendered by
`lmzoo.data.chat_worker`, in a process of its own with limits on time, memory and the length of its text.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lmzoo import files, humanize
from lmzoo.data import chat_worker
from lmzoo.errors import DataError

MAX_TEMPLATE = 1 << 18  # characters; the longest published templates have about 30,000
MAX_TEXT = 1 << 22  # characters of the rendered text
_MEMORY = 1 << 29  # bytes of address space of the process
_SECONDS = 1.0  # of CPU time for rendering; starting the process takes a tenth
_PATIENCE = 60  # seconds until a process is ended that does not get that time, or does not even start
_MARK = "CONTINUE_FINAL_MESSAGE_TAG "
_REASONING = ("reasoning_content", "thinking", "reasoning")  # names of a message's reasoning, the usual one first

Messages = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class ChatFormat:
    """The chat templates of a model by name, of which `default` is the usual one, and the special tokens they use."""

    templates: Mapping[str, str] = field(default_factory=dict[str, str])
    tokens: Mapping[str, str] = field(default_factory=dict[str, str])  # bos_token and others, and their texts

    def render(
        self,
        messages: Messages,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        chat_template: str | None = None,
        add_generation_prompt: bool = False,
        continue_final_message: bool = False,
        **variables: Any,
    ) -> str:
        """Returns the text of a chat. Raises `DataError` for bad messages, and for a template that fails or has no end.

        The arguments have the meaning that they have in `apply_chat_template` of transformers.
        """
        template = self._template(chat_template, tools)
        chat = _checked(messages)
        if continue_final_message and add_generation_prompt:
            raise DataError("continue_final_message and add_generation_prompt exclude each other: give one of them")
        last = _open_end(chat) if continue_final_message else ""
        given: dict[str, Any] = {**self.tokens, **variables}
        given |= {"messages": chat, "tools": tools, "documents": documents}
        text = _rendered(template, {**given, "add_generation_prompt": add_generation_prompt})
        return _cut(text, last) if continue_final_message else text

    def _template(self, chosen: str | None, tools: object) -> str:
        """Returns the template that a name, or a template itself, stands for."""
        if chosen is None:
            chosen = "tool_use" if tools is not None and "tool_use" in self.templates else "default"
            if chosen not in self.templates:
                names = f": name one of {', '.join(self.templates)}" if self.templates else ""
                raise DataError(f"the tokenizer has no chat template{' of its own for this' if names else ''}{names}")
        template = self.templates.get(chosen, chosen)
        if len(template) > MAX_TEMPLATE:
            raise DataError(f"the chat template has {len(template)} characters: at most {MAX_TEMPLATE} are read")
        return template


def _checked(messages: Messages) -> list[dict[str, Any]]:
    """Returns copies of the messages without keys that are None, and with all names of a message's reasoning."""
    good = isinstance(messages, Sequence) and not isinstance(messages, (str, bytes))
    if not good or not messages or not all(isinstance(message, Mapping) for message in messages):
        raise DataError('messages must be a list of objects such as {"role": "user", "content": "Hello"}')
    chat = []
    for message in messages:
        found = {key: value for key, value in message.items() if value is not None}
        reasoning = next((found[name] for name in _REASONING if name in found), None)
        if reasoning is not None:
            found = {"thinking": reasoning, **found, "reasoning_content": reasoning}
        chat.append(found)
    return chat


def _open_end(chat: list[dict[str, Any]]) -> str:
    """Adds a mark to the end of the last message, and returns its text without it."""
    content = chat[-1].get("content")
    if isinstance(content, str):
        chat[-1]["content"] = content + _MARK
        return content
    parts = [{**part} if isinstance(part, Mapping) else part for part in content or ()]
    for part in reversed(parts):
        if isinstance(part, dict) and isinstance(part.get("text"), str):
            text, part["text"] = part["text"], part["text"] + _MARK
            chat[-1]["content"] = parts
            return text
    raise DataError("continue_final_message: the last message has no text to continue")


def _cut(text: str, last: str) -> str:
    """Returns the text up to the mark."""
    if last.strip() not in text or _MARK.strip() not in text:
        raise DataError("continue_final_message: the chat template changes the text of the last message")
    end = text.rindex(_MARK.strip())
    return text[:end] if text[end : end + len(_MARK)] == _MARK else text[:end].rstrip()


def _rendered(template: str, variables: Mapping[str, Any]) -> str:
    """Renders a template in another process."""
    request = {"template": template, "most": MAX_TEXT, "bytes": _MEMORY, "seconds": _SECONDS}
    try:
        sent = json.dumps({**request, "variables": variables}).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(f"messages, tools and variables of a chat must be JSON: {error}") from None
    command = [sys.executable, "-I", chat_worker.__file__, _folder_of_jinja2()]
    zone = {"TZ": os.environ["TZ"]} if "TZ" in os.environ else {}  # nothing else of the environment is for a template
    try:
        done = subprocess.run(command, input=sent, capture_output=True, timeout=_PATIENCE, env=zone, check=False)
        reply = files.parse_json(done.stdout) if done.returncode == 0 else None
    except subprocess.TimeoutExpired:
        raise DataError(f"the chat template is not rendered within {_PATIENCE:g} s: the machine is too busy") from None
    except ValueError:  # killed while it wrote
        reply = None
    if reply is None:
        raise DataError(
            f"the chat template takes more than {_SECONDS:g} s of CPU time, or more than {humanize.size(_MEMORY)} of "
            "memory"
        )
    if "error" in reply:
        raise DataError(f"the chat template {reply['error']}")
    return reply["text"]


def _folder_of_jinja2() -> str:
    try:
        import jinja2
    except ImportError:
        raise DataError("chat templates need the package jinja2: pip install 'lmzoo[chat]'") from None
    return str(Path(jinja2.__file__).parent.parent)
