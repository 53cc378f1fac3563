"""Downloads corpora once from fixed URLs and checks a pinned SHA-256 before every use."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lmzoo.data.cache import cache_dir, cache_file
from lmzoo.errors import DataError
from lmzoo.storage.atomic import file_sha256

TIMEOUT_SECONDS = 30
_ADVICE = "; give a local copy instead: --data path/to/file.txt"


@dataclass(frozen=True)
class Download:
    """A URL, and the SHA-256 and the length in bytes of the expected file."""

    url: str
    sha256: str
    n_bytes: int


# One line per corpus. Add a hash only after inspecting the file.
# fmt: off
DOWNLOADS: dict[str, Download] = {
    "tinyshakespeare": Download("https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt", "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed", 1_115_394),  # noqa: E501
}
# fmt: on


def downloaded(name: str, download: Download) -> Path:
    """Returns the cached file of a download; fetches it if it is missing or has a wrong hash.

    Raises `DataError` (one line) when there is no network, or the response has a wrong hash; then nothing is stored.
    """
    path = cache_dir("downloads") / f"{name}-{download.sha256[:16]}.txt"
    if not _is_intact(path, download.sha256):
        _fetch(name, download, path)
    return path


def _is_intact(path: Path, sha256: str) -> bool:
    try:
        return file_sha256(path) == sha256
    except OSError:
        return False


def _fetch(name: str, download: Download, path: Path) -> None:
    digest = hashlib.sha256()
    received = 0
    with cache_file(path) as write:
        for block in _receive(name, download.url):
            received += len(block)
            digest.update(block)
            write(block)
            if received > download.n_bytes:
                break  # longer than expected: the wrong file
        if digest.hexdigest() != download.sha256:
            raise DataError(
                f"{name} from {download.url} has a wrong hash: expected sha256 {download.sha256}, "
                f"found {digest.hexdigest()} in {received} bytes; nothing was stored{_ADVICE}"
            )


def _receive(name: str, url: str) -> Iterator[bytes]:
    # Imported here: the HTTP client takes longer to import than the rest of this package.
    import http.client
    import urllib.error
    import urllib.request

    request = urllib.request.Request(url, headers={"User-Agent": "lmzoo"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
            while block := response.read(1 << 16):
                yield block
    except urllib.error.HTTPError as error:
        error.close()
        raise DataError(f"cannot download {name} from {url}: HTTP status {error.code}{_ADVICE}") from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        message = f"cannot download {name} from {url} (is there a network?): {reason}{_ADVICE}"
        raise DataError(" ".join(message.split())) from error
