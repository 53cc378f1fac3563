"""Models on the Hugging Face hub, or a server that speaks as it does (HF_ENDPOINT), by the package `huggingface_hub`.

Fetched are config.json, the safetensors files, and the files of the tokenizer: never code, never pickled files. The
token of the user is read by `huggingface_hub` alone, and never shown.
"""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lmzoo import files, humanize
from lmzoo.errors import CheckpointError
from lmzoo.hf.shards import INDEX, ONE_FILE, weight_map

if TYPE_CHECKING:
    from huggingface_hub import HfApi

PREFIX = "hf:"
_CONFIG = "config.json"
_TEXTS = re.compile(
    r"(config|generation_config|tokenizer|tokenizer_config|special_tokens_map|added_tokens)\.json"
    r"|chat_template\.jinja|additional_chat_templates/[\w.-]+\.jinja",
    re.ASCII,
)
# Of a folder to upload, also the model card and the license.
_UPLOADED = re.compile(
    rf"{_TEXTS.pattern}|README\.md|LICENSE(\.(md|txt))?|[\w.-]+\.safetensors|{re.escape(INDEX)}", re.ASCII
)
_ADDRESS = re.compile(r"hf:([\w.-]+(?:/[\w.-]+)?)(?:@([\w./-]+))?", re.ASCII)


class Fetched(NamedTuple):
    """The folder of a fetched model, in the cache of `huggingface_hub`, and the commit it is from."""

    folder: Path
    commit: str


def fetch(address: str, say: Callable[[str], None]) -> Fetched:
    """Fetches a model `hf:ORG/NAME[@REVISION]`; `say` is called with a line before the download.

    Files that are in the cache already are not fetched again. Raises `CheckpointError`, one line, naming the address.
    """
    match = _ADDRESS.fullmatch(address)
    if match is None:
        raise CheckpointError(f"{address}: must be hf:ORG/NAME or hf:ORG/NAME@REVISION")
    repository, revision = match.groups()
    with _errors(address):
        api = _api()
        info = api.model_info(repository, revision=revision, files_metadata=True)
        commit = str(info.sha)
        sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
        names = _wanted(address, api, repository, commit, sizes)
        size = humanize.size(sum(sizes[name] for name in names))
        say(f"fetching {len(names)} files, {size}, of {PREFIX}{repository} at {commit[:12]}")
        folder = api.snapshot_download(repository, revision=commit, allow_patterns=names)
    return Fetched(Path(folder), commit)


def _wanted(address: str, api: HfApi, repository: str, commit: str, sizes: Mapping[str, int]) -> list[str]:
    """Returns the names of the files to fetch. Raises `CheckpointError` if the model has no safetensors files."""
    if _CONFIG not in sizes:
        raise CheckpointError(f"{address}: has no {_CONFIG}: it is no model of transformers")
    if ONE_FILE in sizes:
        weights = [ONE_FILE]
    elif INDEX in sizes:
        index = Path(api.hf_hub_download(repository, INDEX, revision=commit))
        weights = [INDEX, *sorted({*weight_map(index).values()})]
    else:
        others = sorted(name for name in sizes if name.endswith((".bin", ".pt", ".pth", ".gguf", ".safetensors")))
        has = f"; it has {', '.join(others[:3])}" if others else ""
        raise CheckpointError(
            f"{address}: has neither {ONE_FILE} nor {INDEX}{has} (docs/hugging-face.md, Pickled weights)"
        )
    missing = [name for name in weights if name not in sizes]
    if missing:
        raise CheckpointError(f"{address}: lacks {missing[0]}, which {INDEX} lists")
    return [*weights, *sorted(name for name in sizes if _TEXTS.fullmatch(name))]


class Upload(NamedTuple):
    """Files of a folder that `push` uploads: names and sizes in bytes; and the names that it leaves out."""

    folder: Path
    sizes: dict[str, int]
    left_out: list[str]


def plan_upload(folder: Path) -> Upload:
    """Returns what of an exported model would be uploaded: regular files.

    Raises `CheckpointError` if the folder holds none, and for a link to a file elsewhere, which might be a secret.
    """
    if not os.path.isfile(folder / _CONFIG) or not any(folder.glob("*.safetensors")):
        raise CheckpointError(f"{folder}: must be an exported model, with {_CONFIG} and {ONE_FILE}")
    names = sorted(
        str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir() and ".cache" not in path.parts
    )
    try:
        found = {name: os.stat(folder / name) for name in names if _UPLOADED.fullmatch(name)}
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be read: {files.reason(error)}") from error
    sizes = {name: status.st_size for name, status in found.items() if stat.S_ISREG(status.st_mode)}
    for name in sizes:
        if not files.real_path(folder / name).is_relative_to(files.real_path(folder)):
            raise CheckpointError(f"{folder / name}: is a link to a file elsewhere: copy the file to upload it")
    return Upload(folder, sizes, [name for name in names if name not in sizes])


def push(upload: Upload, repository: str, *, private: bool = False, message: str = "Upload a model of lmzoo") -> str:
    """Uploads a folder to a model repository, which is made if there is none; returns the address of the commit.

    Raises `CheckpointError`, one line, also if the repository must be private and exists as a public one.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository, re.ASCII):
        raise CheckpointError(f"{repository}: must be ORG/NAME")
    with _errors(repository):
        from huggingface_hub import get_token

        if get_token() is None:
            raise CheckpointError("uploading needs a token: run `hf auth login`, or set HF_TOKEN")
        api = _api()
        api.create_repo(repository, private=private or None, exist_ok=True)
        if private and not api.model_info(repository).private:
            raise CheckpointError(f"{repository}: exists and is public: nothing was uploaded")
        commit = api.upload_folder(
            repo_id=repository,
            folder_path=upload.folder,
            allow_patterns=[*upload.sizes],
            commit_message=message,
        )
    return str(commit.commit_url)


def _api() -> HfApi:
    from huggingface_hub import HfApi, constants
    from huggingface_hub.utils import disable_progress_bars

    if not sys.stderr.isatty():
        disable_progress_bars()
    return HfApi(endpoint=os.environ.get("HF_ENDPOINT") or constants.ENDPOINT, library_name="lmzoo")


@contextmanager
def _errors(what: str) -> Generator[None]:
    """Within the block, errors of the hub and of the network become a `CheckpointError` of one line about `what`."""
    try:
        from huggingface_hub import constants, errors
    except ImportError:
        raise CheckpointError(f"{what}: the hub needs the package huggingface_hub: pip install 'lmzoo[hub]'") from None
    endpoint = os.environ.get("HF_ENDPOINT") or constants.ENDPOINT
    try:
        yield
    except CheckpointError:
        raise
    except errors.GatedRepoError:
        raise CheckpointError(f"{what}: is gated: accept its terms at {endpoint}, and run `hf auth login`") from None
    except errors.RevisionNotFoundError:
        raise CheckpointError(f"{what}: {endpoint} has no such revision") from None
    except errors.RepositoryNotFoundError:
        raise CheckpointError(
            f"{what}: {endpoint} has no such model, or it is private: then run `hf auth login`, or set HF_TOKEN"
        ) from None
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        hint = "; run `hf auth login`, or set HF_TOKEN" if status in (401, 403) else ""
        raise CheckpointError(f"{what}: {endpoint} answers with status {status}{hint}") from None
    except errors.HFValidationError as error:
        raise CheckpointError(f"{what}: is no name of a repository: {error}") from None
    except OSError as error:  # also `OfflineModeIsEnabled`, which has no number
        if error.errno is None or isinstance(error, ConnectionError):
            raise _unreachable(what, endpoint, error) from None
        raise CheckpointError(f"{what}: cannot be stored or read: {error.filename}: {files.reason(error)}") from None
    except RuntimeError as error:  # in a thread of an upload
        if error.__cause__ is None:
            raise
        raise CheckpointError(f"{what}: {error} ({type(error.__cause__).__name__})") from None
    except Exception as error:  # of the HTTP library, which is not the same in all versions of huggingface_hub
        if not type(error).__module__.startswith(("httpx", "httpcore", "requests", "urllib3")):
            raise
        raise _unreachable(what, endpoint, error) from None


def _unreachable(what: str, endpoint: str, error: Exception) -> CheckpointError:
    return CheckpointError(f"{what}: {endpoint} cannot be reached ({type(error).__name__})")
