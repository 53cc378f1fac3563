"""Tests of `lmzoo.gallery.opening`: the built page, or one made now. The browser itself is not started."""

from __future__ import annotations

import webbrowser
from pathlib import Path

import pytest

from lmzoo.errors import UnknownModelError
from lmzoo.gallery import opening


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    urls: list[str] = []
    monkeypatch.setattr(webbrowser, "open", urls.append)
    monkeypatch.setattr(opening, "SITE", tmp_path)
    return urls


def test_open_page_takes_the_page_of_a_built_site(opened: list[str], tmp_path: Path) -> None:
    page = tmp_path / "gallery" / "bigram.html"
    page.parent.mkdir()
    page.write_text("built")
    assert opening.open_page("bigram") == page
    assert opened == [page.as_uri()]


def test_open_page_makes_a_page_without_a_site(opened: list[str]) -> None:
    page = opening.open_page("bigram")
    assert opened == [page.as_uri()]
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    with pytest.raises(UnknownModelError):
        opening.open_page("bigrum")
