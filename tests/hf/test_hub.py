"""Tests of fetching and uploading models, by `huggingface_hub` itself against a server on this machine."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants

import lmzoo as zoo
from lmzoo.errors import CheckpointError
from lmzoo.hf import hub
from lmzoo.hf.hub import fetch, plan_upload, push
from tests.data.test_pretrained import byte_level
from tests.hf.hub_server import COMMIT, TOKEN, Hub, serving
from tests.hf.references import LLAMA, reference, saved


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint in two shards, with a tokenizer."""
    folder = tmp_path_factory.mktemp("hub") / "there"
    saved(reference("llama", **{**LLAMA, "vocab_size": 300}), folder, max_shard_size="50KB")
    byte_level().save(str(folder / "tokenizer.json"))
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# A model\n")
    return folder


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with serving(monkeypatch, str(tmp_path / "cache")) as found:
        yield found


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_fetch_takes_weights_and_tokenizer_alone(server: Hub, checkpoint: Path) -> None:
    more = {
        "pytorch_model.bin": b"x",
        "modeling_x.py": b"x",
        "adapter.safetensors": b"x",
        "original/a.safetensors": b"x",
    }
    server.repositories["me/tiny"] = {
        **contents(checkpoint),
        **more,
        "tokenizer_config.json": b"{}",
        "additional_chat_templates/rag.jinja": b"r",
    }
    lines: list[str] = []
    found = fetch("hf:me/tiny@v1", lines.append)
    assert found.commit == COMMIT
    index = json.loads((checkpoint / "model.safetensors.index.json").read_text())
    shards = {*index["weight_map"].values()}
    assert len(shards) > 1
    texts = {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"}
    wanted = shards | texts | {"model.safetensors.index.json", "additional_chat_templates/rag.jinja"}
    assert {*server.fetched} == wanted
    assert lines[0].startswith(f"fetching {len(wanted)} files, ")
    assert lines[0].endswith(f" of hf:me/tiny at {COMMIT[:12]}")
    assert server.tokens == {f"Bearer {TOKEN}"}
    idx = torch.arange(20)[None]
    with torch.no_grad():
        torch.testing.assert_close(zoo.load_model(found.folder)(idx).logits, zoo.load_model(checkpoint)(idx).logits)
    server.fetched.clear()
    assert fetch("hf:me/tiny", lines.append).folder == found.folder
    assert server.fetched == [], "a second time, all is in the cache"


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("hf:", "must be hf:ORG/NAME or hf:ORG/NAME@REVISION"),
        ("hf:me/tiny/more", "must be hf:ORG/NAME"),
        ("hf:me/../tiny", "must be hf:ORG/NAME"),
        ("hf:me/--x", "is no name of a repository"),
        ("hf:me/missing", "has no such model, or it is private"),
        ("hf:me/tiny@v2", "has no such revision"),
        ("hf:me/gated", "is gated: accept its terms"),
        ("hf:me/broken", "answers with status 418$"),
        ("hf:me/forbidden", "answers with status 403; run `hf auth login`"),
        ("hf:me/pickled", r"has neither model.safetensors nor .*; it has a.safetensors, pytorch_model.bin"),
        ("hf:me/data", r"has no config.json"),
        ("hf:me/lacks", r"lacks a.safetensors, which model.safetensors.index.json lists"),
        ("hf:me/outside", r"must be NAME.safetensors in the same folder"),
    ],
)
def test_fetch_refuses_in_one_line(address: str, message: str, server: Hub) -> None:
    def index(name: str) -> bytes:
        return json.dumps({"weight_map": {"x": name}}).encode()

    server.repositories |= {
        "me/tiny": {},
        "me/data": {"data.txt": b""},
        "me/pickled": {"config.json": b"{}", "pytorch_model.bin": b"", "a.safetensors": b""},
        "me/lacks": {"config.json": b"{}", "model.safetensors.index.json": index("a.safetensors")},
        "me/outside": {"config.json": b"{}", "model.safetensors.index.json": index("../a.safetensors")},
    }
    server.status |= {"me/gated": (403, "GatedRepo"), "me/broken": (418, ""), "me/forbidden": (403, "")}
    with pytest.raises(CheckpointError, match=message) as caught:
        fetch(address, print)
    assert str(caught.value).count("\n") == 0
    assert TOKEN not in str(caught.value)


def test_fetch_names_a_cache_that_cannot_be_written(
    server: Hub, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.repositories["me/tiny"] = contents(checkpoint)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(checkpoint / "README.md"))
    with pytest.raises(
        CheckpointError, match=r"^hf:me/tiny: cannot be stored or read: .*README.md.*: Not a directory$"
    ):
        fetch("hf:me/tiny", print)


def test_fetch_names_a_server_that_is_not_there(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(CheckpointError, match=r"^hf:me/tiny: http://127.0.0.1:9 cannot be reached \(ConnectError\)$"):
        fetch("hf:me/tiny", print)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match=r"cannot be reached \(OfflineModeIsEnabled\)$"):
        fetch("hf:me/tiny", print)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(CheckpointError, match=r"needs the package huggingface_hub: pip install 'lmzoo\[hub\]'"):
        fetch("hf:me/tiny", print)


UPLOADING = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # of huggingface_hub about httpx


@UPLOADING
def test_push_uploads_what_fetch_takes(server: Hub, checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    for name, content in contents(checkpoint).items():
        (folder / name).write_bytes(content)
    (folder / "notes.py").write_text("print()")
    (folder / "deep").mkdir()
    (folder / "deep" / "model.safetensors").write_text("x")
    upload = plan_upload(folder)
    assert upload.left_out == ["deep/model.safetensors", "notes.py"]
    assert upload.sizes == {name: len(content) for name, content in contents(checkpoint).items()}
    assert push(upload, "me/mine", private=True, message="First") == f"{server.address}/me/mine/commit/{COMMIT}"
    assert server.repositories["me/mine"] == contents(checkpoint)
    assert (server.private, server.messages) == ({"me/mine"}, ["First"])
    assert fetch("hf:me/mine", print).commit == COMMIT


@UPLOADING
def test_push_refuses_in_one_line(
    server: Hub, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CheckpointError, match=r"must be an exported model, with config.json and model.safetensors$"):
        plan_upload(tmp_path)
    upload = plan_upload(checkpoint)
    server.repositories["me/public"] = {}
    with pytest.raises(CheckpointError, match=r"^me/public: exists and is public: nothing was uploaded$"):
        push(upload, "me/public", private=True)
    with pytest.raises(CheckpointError, match=r"^public: must be ORG/NAME$"):
        push(upload, "public")
    assert server.repositories["me/public"] == {}
    server.status["large"] = (403, "")
    with pytest.raises(
        CheckpointError, match=r"^me/new: Error while uploading 'model.* to the Hub. \(HfHubHTTPError\)$"
    ):
        push(upload, "me/new")
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(CheckpointError, match=r"^uploading needs a token: run `hf auth login`, or set HF_TOKEN$"):
        push(upload, "me/public")


def test_plan_upload_reads_regular_files_of_the_folder_alone(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    for name in ("config.json", "model.safetensors", "a.md"):
        (folder / name).write_text("x")
    os.mkfifo(folder / "LICENSE")  # reading it would wait for ever
    (folder / "README.md").symlink_to("a.md")
    upload = plan_upload(folder)
    assert [*upload.sizes] == ["README.md", "config.json", "model.safetensors"]
    assert upload.left_out == ["LICENSE", "a.md"]
    (tmp_path / "secret").write_text("x")
    (folder / "LICENSE.txt").symlink_to(tmp_path / "secret")
    with pytest.raises(
        CheckpointError, match=r"out/LICENSE\.txt: is a link to a file elsewhere: copy the file to upload"
    ):
        plan_upload(folder)


def test_hub_uses_the_server_of_the_library_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    assert hub._api().endpoint == constants.ENDPOINT
