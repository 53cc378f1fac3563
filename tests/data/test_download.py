"""Tests of downloads from a real local server: fetched once, checked on every use, no wrong file is stored."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from lmzoo.data.corpora import load_corpus
from lmzoo.data.download import DOWNLOADS, Download
from lmzoo.errors import DataError

TEXT = "To be, or not to be: that is the question.\n" * 5000
SHA256 = hashlib.sha256(TEXT.encode()).hexdigest()


class _Server(ThreadingHTTPServer):
    hits = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, _Server)
        self.server.hits += 1
        body = TEXT.encode()
        self.send_response(404 if self.path == "/missing" else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: 1000 if self.path == "/cut" else None])

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Server]:
    monkeypatch.setenv("no_proxy", "*")
    with _Server(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def _offer(monkeypatch: pytest.MonkeyPatch, url: str, sha256: str = SHA256, n_bytes: int = len(TEXT)) -> None:
    monkeypatch.setitem(DOWNLOADS, "hamlet", Download(url, sha256, n_bytes))


def _fails(cache: Path, *parts: str) -> None:
    with pytest.raises(DataError) as caught:
        load_corpus("hamlet")
    message = str(caught.value)
    assert "\n" not in message
    for part in (*parts, "--data path/to/file.txt"):
        assert part in message
    assert not list((cache / "downloads").iterdir())


def test_downloaded_fetches_once_and_checks_the_hash_on_every_use(
    server: _Server, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    _offer(monkeypatch, f"{server.url}/text")
    assert "".join(load_corpus("hamlet").chunks()) == TEXT
    assert load_corpus("hamlet").sha256 == SHA256
    assert server.hits == 1
    (file,) = (cache / "downloads").iterdir()
    file.write_text(TEXT.replace("question", "answer"))
    assert load_corpus("hamlet").sha256 == SHA256
    assert server.hits == 2


def test_downloaded_names_a_wrong_hash_and_stores_nothing(
    server: _Server, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    _offer(monkeypatch, f"{server.url}/text", sha256="0" * 64)
    _fails(cache, "wrong hash", "0" * 64, SHA256, server.url)


def test_downloaded_stops_reading_an_endless_response(
    server: _Server, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    _offer(monkeypatch, f"{server.url}/text", sha256="0" * 64, n_bytes=10)
    _fails(cache, "wrong hash", "in 65536 bytes")


def test_downloaded_refuses_a_truncated_response(server: _Server, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    _offer(monkeypatch, f"{server.url}/cut")
    _fails(cache, "hamlet", server.url)


def test_downloaded_names_the_status_of_a_missing_page(
    server: _Server, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    _offer(monkeypatch, f"{server.url}/missing")
    _fails(cache, "HTTP status 404", server.url)


def test_downloaded_without_network_says_how_to_pass_a_file(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    monkeypatch.setenv("no_proxy", "*")
    with socket.socket() as unused:
        # The socket is bound but not listening, so connections are refused.
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/text"
        _offer(monkeypatch, url)
        _fails(cache, "cannot download hamlet", url, "is there a network?", "refused")


def test_downloads_table_has_valid_urls_and_hashes() -> None:
    for name, download in DOWNLOADS.items():
        assert download.url.startswith("https://"), name
        assert len(bytes.fromhex(download.sha256)) == 32
        assert download.n_bytes > 0
