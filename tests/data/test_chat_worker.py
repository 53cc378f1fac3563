"""Tests of the program that renders a chat template: one request, one reply, whatever the template does."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import jinja2
import pytest

from lmzoo.data import chat_worker

JINJA = str(jinja2.__path__[0]).removesuffix("/jinja2")


def reply_to(template: str, **changes: Any) -> tuple[int, dict[str, Any] | None]:
    """Returns the exit code and the reply to a request."""
    request = {"template": template, "variables": {}, "most": 100, "bytes": 1 << 29, "seconds": 5, **changes}
    command = [sys.executable, "-I", chat_worker.__file__, JINJA]
    done = subprocess.run(command, input=json.dumps(request), capture_output=True, text=True, check=False)
    return done.returncode, json.loads(done.stdout) if done.returncode == 0 else None


def test_chat_worker_replies_with_a_text_or_an_error() -> None:
    assert reply_to("{{ a }}\u2028", variables={"a": "中"}) == (0, {"text": "中\u2028"})
    assert reply_to("{{ a.b.c }}") == (0, {"error": "fails: 'a' is undefined"})
    assert reply_to("aaa", most=2) == (0, {"error": "fails: ValueError: its text has more than 2 characters"})


@pytest.mark.parametrize("limit", [{"seconds": 0.05}, {"bytes": 1 << 27, "seconds": 10}])
def test_chat_worker_ends_at_its_limits(limit: dict[str, Any]) -> None:
    """By a signal, or with an error."""
    code, reply = reply_to(
        "{% set n = 'a' * 99999999 %}{% for i in range(99999) %}{{ n | upper | length }}{% endfor %}", **limit
    )
    assert code < 0 or reply == {"error": "needs too much memory"}
