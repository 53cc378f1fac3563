"""Runs manipulated by an attacker: each case changes a valid run. Manifests are correct unless they are the case."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

Craft = Callable[[Path, Path], None]  # (the run, a folder beside it that must not be touched)
STEP = "checkpoints/step-00000004"
EVIL = "__import__('os').system('touch hacked')"


class Hack:
    """An object whose pickle makes a call when it is read."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.canary),)


def sign(folder: Path) -> None:
    """Write a correct manifest for the files in a folder."""
    files = [path for path in folder.iterdir() if path.name != "manifest.json" and path.is_file()]
    entries = {p.name: {"bytes": p.stat().st_size, "sha256": hashlib.sha256(p.read_bytes()).hexdigest()} for p in files}
    (folder / "manifest.json").write_text(json.dumps({"lmzoo": 1, "files": entries}))


def signed(change: Callable[[Path, Path], object]) -> Craft:
    """Change the folder of the checkpoint, and write a correct manifest."""

    def craft(run: Path, outside: Path) -> None:
        change(run / STEP, outside)
        sign(run / STEP)

    return craft


def file_of(name: str, content: bytes) -> Craft:
    """Replace the content of the checkpoint's file `name`."""
    return signed(lambda folder, outside: (folder / name).write_bytes(content))


def json_of(name: str, change: Callable[[dict[str, Any]], object]) -> Craft:
    """Change the JSON in the checkpoint's file `name`."""

    def craft(folder: Path, outside: Path) -> None:
        content = json.loads((folder / name).read_text())
        change(content)
        (folder / name).write_text(json.dumps(content))

    return signed(craft)


def tensors_of(name: str, change: Callable[[dict[str, torch.Tensor]], object]) -> Craft:
    """Change the tensors in the checkpoint's file `name`."""

    def craft(folder: Path, outside: Path) -> None:
        tensors = load_file(folder / name)
        change(tensors)
        save_file(tensors, folder / name)

    return signed(craft)


def config_of(**values: Any) -> Craft:
    """Change settings of the model."""
    return json_of("config.json", lambda content: content["config"].update(values))


def counters_of(**values: Any) -> Craft:
    """Change counters of the run."""
    return json_of("training.json", lambda content: content.update(values))


def header_of(header: Any, size: int | None = None, data: bytes = b"") -> Craft:
    """Replace the weights by a safetensors file with this header and this declared header size."""
    text = json.dumps(header).encode()
    return file_of("model.safetensors", struct.pack("<Q", len(text) if size is None else size) + text + data)


def pickled(name: str, save: Callable[[Any, Path], object]) -> Craft:
    """Replace a file of the checkpoint by a pickle that makes a call."""
    return signed(lambda folder, outside: save(Hack(outside / "hacked"), folder / name))


def manifest_names(name: str) -> Craft:
    """Add `name` to the manifest."""

    def craft(run: Path, outside: Path) -> None:
        path = run / STEP / "manifest.json"
        content = json.loads(path.read_text())
        content["files"][name] = content["files"]["config.json"]
        path.write_text(json.dumps(content))

    return craft


def linked(name: str, target: str) -> Craft:
    """Replace `name` by a link to a target outside of the run, which gets its content."""

    def craft(run: Path, outside: Path) -> None:
        if (run / name).exists():
            (run / name).rename(outside / target)
        (run / name).symlink_to(outside / target)

    return craft


def pipe(name: str) -> Craft:
    """Replace `name` by a pipe, on which reading never ends."""

    def craft(run: Path, outside: Path) -> None:
        (run / name).unlink()
        os.mkfifo(run / name)

    return craft


def text_of(name: str, change: Callable[[str], str]) -> Craft:
    """Change the text of a file of the run."""

    def craft(run: Path, outside: Path) -> None:
        (run / name).write_text(change((run / name).read_text()))

    return craft


def dump(thing: Any, path: Path) -> None:
    """Write a plain pickle."""
    path.write_bytes(pickle.dumps(thing))


F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
BIG = torch.zeros(1 << 20)
# Cases that must be refused in one line, when the run is loaded and when it is resumed.
REFUSED: dict[str, Craft] = {
    "a pickle for weights": pickled("model.safetensors", dump),
    "torch.save for weights": pickled("model.safetensors", torch.save),
    "a pickle for the config": pickled("config.json", dump),
    **{f"the model {name!r}": json_of("config.json", lambda content, name=name: content.update(model=name))
       for name in ("os.system", "../../evil", "builtins", EVIL, ["gpt2"], None, "gpt5", "", "gpt2\n")},
    **{f"the setting {name}={str(value)[:30]}": config_of(**{name: value})
       for name, value in (("d_model", 10**9), ("d_model", -16), ("n_layers", 10**9), ("n_layers", 10**30),
                           ("context_length", 10**15), ("vocab_size", 2**62), ("vocab_size", EVIL), ("dropout", "nan"),
                           ("n_heads", 0), ("d_model", {"a": 1}), ("__class__", "os"), ("bias", EVIL))},
    "a header of 2**63 bytes": header_of({}, 2**63),
    "a header of all memory": header_of({}, 1 << 40),
    "a tensor of 4 petabytes": header_of({"w": {**F32, "shape": [10**15], "data_offsets": [0, 4 * 10**15]}}),
    "a tensor outside the file": header_of({"w": {**F32, "data_offsets": [1 << 40, (1 << 40) + 8]}}, data=b"x" * 8),
    "tensors that overlap": header_of({"a": F32, "b": F32}, data=b"x" * 8),
    "a negative shape": header_of({"w": {**F32, "shape": [-2]}}, data=b"x" * 8),
    "a header that is no object": header_of([1, 2]),
    "an unknown type": header_of({"w": {**F32, "dtype": "OBJECT"}}, data=b"x" * 8),
    "nested JSON": file_of("config.json", b"[" * 1_000_000),
    "17 MB of JSON": file_of("config.json", b" " * (17 << 20)),
    "other tensors": tensors_of("model.safetensors", lambda tensors: tensors.update(evil=BIG)),
    "a missing tensor": tensors_of("model.safetensors", lambda tensors: tensors.pop("norm.weight")),
    "a tensor of another shape": tensors_of("model.safetensors", lambda t: t.update({"norm.weight": BIG})),
    **{f"{name} is a pipe": pipe(name) for name in ("config.toml", "tokenizer.json")},
    **{f"{name} is a link": linked(name, name) for name in ("checkpoints", "config.toml", "tokenizer.json")},
    "a tokenizer that is a pickle": lambda run, outside: dump(Hack(outside / "hacked"), run / "tokenizer.json"),
    "a tokenizer of another kind": text_of("tokenizer.json", lambda text: text.replace('"char"', '"pickle"')),
    "a config.toml that is no TOML": text_of("config.toml", lambda text: EVIL),
}  # fmt: skip
# Cases that must be refused when the run is resumed; loading does not read these files.
NOT_RESUMED: dict[str, Craft] = {
    "a pickle for the optimizer": pickled("optimizer.safetensors", dump),
    "a state of no parameter": tensors_of("optimizer.safetensors", lambda t: t.update({"evil/exp_avg": BIG[:1]})),
    "a scalar of no parameter": tensors_of("optimizer.safetensors", lambda t: t.update({"evil/step": BIG[0].clone()})),
    "a state of another shape": tensors_of("optimizer.safetensors", lambda t: t.update({"norm.weight/exp_avg": BIG})),
    "a state of numbers of another kind": tensors_of(
        "optimizer.safetensors", lambda t: t.update({"norm.weight/exp_avg": t["norm.weight/exp_avg"].long()})
    ),
    "no random state": tensors_of("optimizer.safetensors", lambda t: t.pop("random/cpu")),
    "a random state of another size": tensors_of(
        "optimizer.safetensors", lambda t: t.update({"random/cpu": torch.zeros(9, dtype=torch.uint8)})
    ),
    "a model of another name in config.toml": text_of(
        "config.toml", lambda text: text.replace('"gpt2"', '"os.system"')
    ),
}
# Damaged checkpoints: a run skips them and uses the one before, resuming renames them; refused if loaded by path.
NAMES = ("../../../outside/secret", "/etc/passwd", "..", "", "a/b", "config.json\n", "a\0b", "~/x", ".hidden")
PASSED_OVER: dict[str, Craft] = {
    **{f"the manifest lists {name!r}": manifest_names(name) for name in NAMES},
    **{f"{name} is a link": linked(f"{STEP}/{name}", name)
       for name in ("model.safetensors", "config.json", "manifest.json")},
    "config.json is a pipe": pipe(f"{STEP}/config.json"),
}  # fmt: skip
# The same, except that the model, which is valid, can be loaded by the path of the checkpoint.
COUNTERS = (("step", 10**18), ("step", -1), ("step", "4"), ("step", 2), ("tokens", [1]), ("evil", EVIL))
MISCOUNTED: dict[str, Craft] = {
    **{f"the counter {name}={str(value)[:30]}": counters_of(**{name: value}) for name, value in COUNTERS},
    "a pickle for the counters": pickled("training.json", dump),
}
# Harmless cases: links out of the run at paths where files are written, which must not be followed.
LINKS = (
    ".metrics.jsonl.writing", ".sample.txt.writing", "link", "checkpoints/step-00000099", "checkpoints/damaged-step-1",
    "checkpoints/.step-00000006.writing", "checkpoints/.step-00000002.replaced",
)  # fmt: skip
HARMLESS: dict[str, Craft] = {
    f"{name} is a link": linked(name, "" if name.startswith("checkpoints") else "secret") for name in LINKS
}
