"""Cases of files: a run, a tokenizer and a decoding state, with changed content or another kind of file."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

import lmzoo
from lmzoo.data.corpora import load_corpus
from lmzoo.runs.metrics import read_metrics
from lmzoo.runs.run import evaluate_run, load_run, train_run
from lmzoo.runs.spec import make_spec
from tests.fuzz import values
from tests.fuzz.commands import SMALL
from tests.fuzz.watch import Case, Place

READERS = ("load_run", "load_model", "load_tokenizer", "evaluate_run", "read_metrics", "resume", "sample")


def case(draw: random.Random, place: Place) -> Case:
    """Draws a file, a change of it, and a function that reads it."""
    if draw.random() < 0.25:
        return _state_case(draw, place)
    run = place.work / "run"
    shutil.copytree(place.base / "run", run)
    files = sorted(path for path in run.rglob("*") if path.is_file())
    file = draw.choice(files)
    change = _change(draw, place, file)
    if draw.random() < 0.7 and file.parent.name.startswith("step-") and file.name != "manifest.json":
        _sign(file.parent)
        change += ", with a correct manifest"
    reader = draw.choice(READERS)
    if reader == "resume":  # it renames damaged checkpoints, so it works on a folder that is not watched
        shutil.rmtree(place.root / "resumed", ignore_errors=True)
        shutil.move(run, place.root / "resumed")
    return Case(f"{reader} of a run with {file.relative_to(run)} {change}", _reader(reader, run, place))


def _change(draw: random.Random, place: Place, file: Path) -> str:
    kind = draw.choice(("pipe", "link", "folder", "missing", *["content"] * 8))
    content = file.read_bytes()
    file.unlink()
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "link":
        file.symlink_to(draw.choice((place.pipe, Path("/dev/zero"), Path("/etc/passwd"), Path("nothing"), file)))
    elif kind == "folder":
        file.mkdir()
    elif kind == "content":
        changed = values.damaged(draw, content)
        file.write_bytes(changed)
        return f"changed to {changed[:80]!r}... of {len(changed)} bytes"
    return f"replaced by: {kind}"


def _sign(folder: Path) -> None:
    """Write a correct manifest, so that what comes after its check is reached."""
    entries = {
        path.name: {"bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        for path in folder.iterdir()
        if path.is_file() and not path.is_symlink() and path.name != "manifest.json"
    }
    (folder / "manifest.json").write_text(json.dumps({"lmzoo": 1, "files": entries}))


def _reader(name: str, run: Path, place: Place) -> Callable[[], object]:
    def resume() -> object:
        overrides = {**{key: int(value) for key, value in SMALL.items()}, "steps": 4}
        spec = make_spec("gpt2", str(place.base / "text.txt"), overrides=overrides)
        return train_run(spec, place.root / "resumed", resume=True)

    readers: dict[str, Callable[[], object]] = {
        "load_run": lambda: load_run(run),
        "load_model": lambda: lmzoo.load_model(run),
        "load_tokenizer": lambda: lmzoo.load_tokenizer(run).encode("1 sheep"),
        "evaluate_run": lambda: evaluate_run(run),
        "read_metrics": lambda: read_metrics(run),
        "sample": lambda: lmzoo.load_model(run).generate(prompt(), 3),
        "resume": resume,
    }
    return readers[name]


def prompt() -> Tensor:
    """Returns a prompt of one token."""
    return torch.zeros(1, 1, dtype=torch.long)


def _state_case(draw: random.Random, place: Place) -> Case:
    """A decoding state with changed content; a loaded one is decoded from."""
    family = draw.choice(("gpt2", "llama", "lstm", "mamba"))
    model = lmzoo.create_model(f"{family}.tiny", vocab_size=11, context_length=16).eval()
    path = place.work / "state"
    _, state = model.decode(torch.zeros(1, 3, dtype=torch.long), model.init_state(1))
    lmzoo.state.save(path, state)
    content = values.damaged(draw, path.read_bytes())
    if draw.random() < 0.6:
        numbers = (b'\\"capacity\\": 16', b'\\"value\\": 3', b"[1,3,", b"[1,2,")
        old = draw.choice(numbers)
        new = old.rstrip(b"0123456789,") + str(draw.choice((0, -1, 1 << 40, 10**20, 10**400))).encode()
        content = path.read_bytes().replace(old, new)
        header = int.from_bytes(content[:8], "little") + len(content) - path.stat().st_size
        content = header.to_bytes(8, "little") + content[8:]
    path.write_bytes(content)

    def work() -> None:
        loaded = lmzoo.state.load(path, model.init_state(1))
        model.decode(torch.zeros(1, 2, dtype=torch.long), loaded)

    return Case(f"state.load and decode of {family} from {content[8:400]!r}", work)


def corpus_case(draw: random.Random, place: Place) -> Case:
    """A folder of texts with files of every kind and name."""
    folder = place.work / "texts"
    folder.mkdir()
    for _ in range(draw.choice((0, 1, 3))):
        name = values.text(draw, nul=False).replace("/", "")[:60] + draw.choice((".txt", ".md", ".py", ""))
        path = (
            os.fsencode(folder)
            + b"/"
            + os.fsencode(name.encode(errors="surrogateescape").decode(errors="ignore") or "a")
        )
        if os.path.lexists(path) or len(os.path.basename(path)) > 250 or os.path.basename(path) in (b".", b".."):
            continue
        kind = draw.randrange(5)
        if kind == 0:
            os.mkfifo(path)
        elif kind == 1:
            os.symlink(draw.choice((b"/dev/zero", os.fsencode(place.pipe), b"nothing", path)), path)
        else:
            with open(path, "wb") as file:
                file.write(values.damaged(draw, "größer 中文\n".encode() * 20))
    what = draw.choice((str(folder), f"{folder}/*", f"{folder}/**", f"hf:{folder}"))
    return Case(f"load_corpus({what!r}) with {sorted(os.listdir(os.fsencode(folder)))}", lambda: load_corpus(what))
