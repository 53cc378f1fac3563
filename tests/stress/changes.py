"""Resumes runs with another setting, tokenizer or text: each is refused by name, and no file changes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lmzoo import configs
from lmzoo.errors import LmzooError
from lmzoo.runs.run import RunSpec, load_run
from tests.stress import children, runs
from tests.stress.bench import Bench, Tally

SETTINGS = {"steps": 4, "checkpoint_every": 2, "eval_every": 2}
WORDS = {"schedule": "wsd", "precision": "bf16", "optimizer": "muon", "parallel": "fsdp", "documents": "isolated"}


def changes(bench: Bench, count: int) -> Tally:
    """Change every setting of training and model, the tokenizer and the text, for `count` backbones."""
    tally = Tally()
    for backbone in list(runs.BACKBONES)[:count]:
        spec = bench.spec(backbone, **SETTINGS)
        run = bench.whole(spec)
        for name, other in _others(bench, backbone, spec):
            _refused(bench, other, run, name, tally)
            tally.done["settings"] += 1
            bench.progress(f"changes: {backbone}, {name}")
        _refused(bench, dataclasses.replace(spec, tokenizer="byte"), run, "data.tokenizer", tally)
        tally.done["tokenizers"] += 1
        _other_tokenizer(bench, spec, run, tally)
        _other_text(bench, spec, run, tally)
    return tally


def _others(bench: Bench, backbone: str, spec: RunSpec) -> Iterator[tuple[str, RunSpec]]:
    """Yield each setting with a spec in which it has another valid value."""
    config = spec.model_config(256)
    for table, settings in (("train", spec.train.resolved()), ("model", config)):
        for name, value in configs.to_dict(settings).items():
            if name != "vocab_size":
                key = f"{table}.{name}"
                yield key, _with(bench, backbone, key, _candidates(name, value))
    yield "model.name", bench.spec(next(b for b in runs.BACKBONES if b != backbone), **SETTINGS)


def _candidates(name: str, value: Any) -> list[Any]:
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, str):
        return [WORDS[name]]
    if value is None:
        return [1, 1e-4]
    return [other for other in (value * 2, value + 1, value / 2, 0.5) if other != value]


def _with(bench: Bench, backbone: str, key: str, candidates: list[Any]) -> RunSpec:
    for value in candidates:
        try:
            settings = {f"train.{name}": given for name, given in SETTINGS.items()}
            return bench.spec(backbone, **{**settings, key: value})
        except LmzooError:
            continue
    raise AssertionError(f"no other value for {key}")


def _refused(bench: Bench, spec: RunSpec, run: Path, name: str, tally: Tally) -> None:
    before = runs.content(run)
    child = bench.train(spec, run)
    line = child.error
    named = line.startswith(("ConfigError: ", "DataError: ")) and f"{name}=" in line and children.LINE_BREAK not in line
    tally.check(child.code == children.REFUSED and named, f"{name}: ended with {child.code}: {line}")
    tally.check(runs.content(run) == before, f"{name}: something was written")


def _other_tokenizer(bench: Bench, spec: RunSpec, run: Path, tally: Tally) -> None:
    """Replace the tokenizer file by one of the same size: resuming and loading must be refused."""
    file = run / "tokenizer.json"
    good = file.read_bytes()
    content = json.loads(good)
    content["chars"] = content["chars"][:-1] + chr(ord(content["chars"][-1]) + 1)
    file.write_text(json.dumps(content))
    _refused(bench, spec, run, "data.tokenizer_sha256", tally)
    try:
        load_run(run)
        tally.failures.append("a run with another tokenizer.json was loaded")
    except LmzooError as error:
        tally.check("tokenizer.json: its SHA-256 differs from the one in config.toml" in str(error), str(error))
    file.write_bytes(good)
    tally.done["tokenizers"] += 1


def _other_text(bench: Bench, spec: RunSpec, run: Path, tally: Tally) -> None:
    """Change one byte of the text, its end, or its beginning; the same text at another path is accepted."""
    copy = bench.folder / "moved.txt"
    moved = dataclasses.replace(spec, data=str(copy))
    for name, text in (("byte", "t" + runs.TEXT[1:]), ("end", runs.TEXT[:-1]), ("beginning", " " + runs.TEXT)):
        copy.write_text(text, encoding="utf-8")
        _refused(bench, moved, run, "data.corpus_sha256", tally)
        tally.done[f"texts: another {name}"] += 1
    copy.write_text(runs.TEXT, encoding="utf-8")
    child = bench.train(moved, run)
    tally.check(child.code == children.DONE, f"the text in another place: {child.error}")
