"""A small server with the answers of the Hugging Face hub that `huggingface_hub` needs to fetch and upload a model."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
from huggingface_hub import constants

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_thisIsASecretOfTheUser"


@dataclass
class Hub:
    """Repositories by name, and the requests so far."""

    address: str = ""
    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict[str, dict[str, bytes]])
    private: set[str] = field(default_factory=set[str])
    status: dict[str, tuple[int, str]] = field(default_factory=dict[str, tuple[int, str]])  # of a refused repository
    large: dict[str, bytes] = field(default_factory=dict[str, bytes])  # uploaded by SHA-256
    messages: list[str] = field(default_factory=list[str])
    fetched: list[str] = field(default_factory=list[str])
    tokens: set[str | None] = field(default_factory=set[str | None])


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def log_message(self, format: str, *arguments: Any) -> None:
        pass

    def _answer(self, content: object, status: int = 200, **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers["Content-Length"] or 0))

    def do_GET(self) -> None:
        self.hub.tokens.add(self.headers.get("Authorization"))
        path = self.path.partition("?")[0]
        info = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?", path)
        file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        match = info or file
        assert match is not None, path
        name = match[1]
        if name in self.hub.status:
            status, code = self.hub.status[name]
            return self._answer({"error": "refused"}, status, X_Error_Code=code)
        if name not in self.hub.repositories:
            return self._answer({"error": "Not found"}, 401, X_Error_Code="RepoNotFound")
        files = self.hub.repositories[name]
        if file is not None:
            assert match[2] == COMMIT
            if match[3] not in files:
                return self._answer({"error": "Not found"}, 404, X_Error_Code="EntryNotFound")
            if self.command == "GET":
                self.hub.fetched.append(match[3])
            content = files[match[3]]
            return self._answer(content, ETag=f'"{hashlib.sha256(content).hexdigest()}"', X_Repo_Commit=COMMIT)
        if match[3] not in (None, "main", "v1", COMMIT):
            return self._answer({"error": "Invalid rev id"}, 404, X_Error_Code="RevisionNotFound")
        if match[2] == "tree":
            listed = [{"type": "file", "path": p, "size": len(c), "oid": "0" * 40} for p, c in files.items()]
            return self._answer(listed)
        siblings = [{"rfilename": path, "size": len(content)} for path, content in files.items()]
        facts = {"id": name, "sha": COMMIT, "siblings": siblings, "private": name in self.hub.private}
        return self._answer(facts)

    do_HEAD = do_GET

    def do_PUT(self) -> None:
        content = self._body()
        if "large" in self.hub.status:
            return self._answer({}, self.hub.status["large"][0])
        assert self.path == f"/large/{hashlib.sha256(content).hexdigest()}"
        self.hub.large[self.path.removeprefix("/large/")] = content
        return self._answer({})

    def do_POST(self) -> None:
        self.hub.tokens.add(self.headers.get("Authorization"))
        body, path = self._body(), self.path.partition("?")[0]
        if path.endswith("/commit/main"):
            return self._commit(path.removeprefix("/api/models/").removesuffix("/commit/main"), body)
        asked = json.loads(body)
        if path == "/api/repos/create":
            name = f"{asked['organization']}/{asked['name']}"
            there = name in self.hub.repositories
            if not there:
                self.hub.repositories[name] = {}
                self.hub.private |= {name} if asked.get("private") or asked.get("visibility") == "private" else set()
            return self._answer({"url": f"{self.hub.address}/{name}", "id": name}, 409 if there else 200)
        if path == "/api/validate-yaml":
            return self._answer({"warnings": [], "errors": []})
        if path.endswith("/preupload/main"):
            modes = [(file["path"], file["path"].endswith(".safetensors")) for file in asked["files"]]
            files = [{"path": p, "uploadMode": "lfs" if x else "regular", "shouldIgnore": False} for p, x in modes]
            return self._answer({"files": files})
        assert path.endswith(".git/info/lfs/objects/batch"), path
        objects = [
            {**each, "actions": {"upload": {"href": f"{self.hub.address}/large/{each['oid']}"}}}
            for each in asked["objects"]
        ]
        return self._answer({"transfer": "basic", "objects": objects})

    def _commit(self, name: str, body: bytes) -> None:
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "header":
                self.hub.messages.append(value["summary"])
            elif entry["key"] == "lfsFile":
                self.hub.repositories[name][value["path"]] = self.hub.large[value["oid"]]
            else:
                self.hub.repositories[name][value["path"]] = base64.b64decode(value["content"])
        self._answer({"commitUrl": f"{self.hub.address}/{name}/commit/{COMMIT}", "commitOid": COMMIT})


@contextmanager
def serving(monkeypatch: pytest.MonkeyPatch, cache: str) -> Iterator[Hub]:
    """Starts the server, and points `huggingface_hub` to it, with a token and an empty cache."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        for name, value in (("HF_HUB_CACHE", cache), ("HF_HUB_OFFLINE", False), ("HF_HUB_DISABLE_XET", True)):
            monkeypatch.setattr(constants, name, value)
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
