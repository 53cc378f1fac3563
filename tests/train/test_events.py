"""Tests the combination of listeners."""

from __future__ import annotations

from lmzoo.train.events import EndEvent, Event, NoteEvent, fan_out


def test_fan_out_calls_all_listeners_in_order() -> None:
    heard: list[tuple[str, Event]] = []
    send = fan_out([lambda event: heard.append(("first", event)), lambda event: heard.append(("second", event))])
    send(NoteEvent("hello"))
    send(EndEvent())
    assert heard == [(name, event) for event in (NoteEvent("hello"), EndEvent()) for name in ("first", "second")]
