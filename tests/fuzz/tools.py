"""Cases of the commands around a trained model: export, import, transplant, inspect, reports, probes and others."""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import lmzoo
from lmzoo.compare.results import write_results
from lmzoo.data import train_tokenizer
from lmzoo.hf.directory import export
from lmzoo.probing import results as probing
from lmzoo.reproducing import verdicts
from tests.compare import example as compared
from tests.fuzz import values
from tests.fuzz.commands import COMMAND_SECONDS, data_of
from tests.fuzz.watch import Case, Place, command
from tests.probing import example as probed

SIZES = {"d_model": 16, "n_layers": 2, "n_heads": 2, "context_length": 16}
TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
FAMILIES = ("gated_deltanet", "fox", "mamba", "llama", "lstm", "hybrid", "rwkv7", "gpt2", "kept", "")
RESULTS = {"compared": "results.json", "probed": "probes.json", "reproduced": "reproduced.json"}


def prepare(base: Path) -> None:
    """Write what cases start from: saved models, one of them for chats, and the results of three commands."""
    tokenizer = train_tokenizer("byte", [""])
    for family, kind in (("llama", {"n_kv_heads": 1}), ("retnet", {})):
        lmzoo.create_model(family, vocab_size=256, **SIZES, **kind).save(base / family, tokenizer=tokenizer)
    lmzoo.load_model(base / "llama").save(base / "bare")
    export(lmzoo.load_model(base / "llama"), base / "chat", tokenizer=tokenizer)
    config = json.loads((base / "chat" / "tokenizer_config.json").read_text())
    (base / "chat" / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": TEMPLATE}))
    for folder in RESULTS:
        (base / folder).mkdir()
    write_results(compared.everything(), base / "compared")
    probing.write_results(probed.example(), base / "probed")
    made = verdicts.Reproduction(recipe="another", paper="p", claim="c", verdicts=[])
    verdicts.write(made, base / "reproduced")


def case(draw: random.Random, place: Place) -> Case:
    """Draws a command, its options and its files."""
    name = draw.choice([*COMMANDS])
    arguments = [name, *COMMANDS[name](draw, place)]
    if draw.random() < 0.05:
        arguments.insert(draw.randrange(len(arguments) + 1), values.text(draw, nul=False))
    if draw.random() < 0.1:
        arguments.append("--json")
    arguments = [argument[:100_000].replace("\0", "") for argument in arguments]
    return Case(f"lmzoo {arguments!r}", lambda: command(*arguments), COMMAND_SECONDS)


def _source(draw: random.Random, place: Place) -> str:
    """Draws a model, some of them with a file that is damaged or of another kind; or something that is none."""
    if draw.random() < 0.15:
        loop = place.work / "loop"
        loop.symlink_to(loop)
        others = (place.pipe, loop, loop / "x", place.work, "nothing", "gpt2", "/dev/zero", "a" * 300, "")
        return str(draw.choice((*others, values.text(draw, nul=False))))
    folder = place.work / "model"
    shutil.copytree(place.base / draw.choice(("llama", "llama", "retnet", "bare", "chat", "run")), folder)
    if draw.random() < 0.3:
        _damage(draw, place, draw.choice(sorted(path for path in folder.rglob("*") if path.is_file())))
    return str(folder)


def _damage(draw: random.Random, place: Place, file: Path) -> None:
    """Changes the content of a file, or puts something else in its place."""
    kind, content = draw.choice(("pipe", "link", "folder", "json", "json", "bytes", "bytes")), file.read_bytes()
    if kind == "json" and file.suffix == ".json":
        file.write_text(json.dumps(_changed(draw, json.loads(content))))
        return
    file.unlink()
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "link":
        file.symlink_to(draw.choice((place.pipe, Path("/dev/zero"), Path("/etc/passwd"), Path("nothing"), file)))
    elif kind == "folder":
        file.mkdir()
    else:
        file.write_bytes(values.damaged(draw, content))


def _changed(draw: random.Random, value: Any) -> Any:
    """Replaces one value at any depth of a JSON value, or leaves it out."""
    if isinstance(value, (dict, list)) and value and draw.random() < 0.9:
        places = [*value] if isinstance(value, dict) else range(len(value))
        place = draw.choice(places)
        if draw.random() < 0.1:
            del value[place]
        else:
            value[place] = _changed(draw, value[place])
        return value
    kind = draw.random()
    number = values.number(draw)
    return number if kind < 0.5 else values.text(draw, encodable=True) if kind < 0.8 else draw.choice((None, [], {}))


def _new(draw: random.Random, suffix: str = "") -> str:
    """Draws the name of a file or a folder to write."""
    if draw.random() < 0.6:
        return f"new{suffix}"
    places = (
        "pipe.txt",
        "/dev/null",
        "/dev/full",
        "/proc/x",
        "a" * 256,
        "x/" + "a" * 300,
        "",
        ".",
        "loop/x",
        "new/deep",
    )
    name = draw.choice((*places, values.text(draw, nul=False).replace("/", "_").replace("..", "_")))
    return name if draw.random() < 0.3 else name + suffix


def _options(draw: random.Random, **options: object) -> list[str]:
    """Draws a few of the options, each with one of its values or with any text or number."""
    found: list[str] = []
    for name in draw.sample([*options], k=min(len(options), draw.choice((0, 1, 1, 2)))):
        good: Any = options[name]
        drawn = (
            draw.choice((values.text(draw, nul=False), values.number(draw)))
            if draw.random() < 0.4
            else draw.choice(good)
        )
        found.append(f"--{name.replace('_', '-')}={str(drawn)[:2000]}")
    return found


def _export(draw: random.Random, place: Place) -> list[str]:
    types = ("llama", "mistral", "lmzoo", "gpt2", "x")
    options = _options(
        draw, type=types, dtype=("bfloat16", "float8"), license=("mit",), tokenizer=("pipe.txt", "nothing")
    )
    return [_source(draw, place), _new(draw), *options]


def _import(draw: random.Random, place: Place) -> list[str]:
    if draw.random() < 0.3:
        os.environ["HF_ENDPOINT"] = draw.choice(("http://127.0.0.1:9", "x", "", "http://\x1b", "file:///etc/passwd"))
        return [draw.choice(("hf:a/b", "hf:a/b@c", "hf:", "hf:../../etc", f"hf:{values.text(draw, nul=False)}")), "new"]
    return [_source(draw, place), _new(draw), *_options(draw, dtype=("float16",))]


def _push(draw: random.Random, place: Place) -> list[str]:
    os.environ.pop("HF_TOKEN", None)
    folder = _source(draw, place)
    if os.path.isdir(folder) and draw.random() < 0.5:
        os.mkfifo(Path(folder) / "LICENSE")
    return [folder, draw.choice(("me/mine", "", "a", values.text(draw, nul=False))), *draw.choice(([], ["--dry-run"]))]


def _gguf(draw: random.Random, place: Place) -> list[str]:
    return [_source(draw, place), _new(draw, ".gguf"), *_options(draw, dtype=("float16", "int8"))]


def _transplant(draw: random.Random, place: Place) -> list[str]:
    layers = ("0", "1", "0,1", "5", "-1", "0,0", "", "1" * 30)
    options = _options(draw, layers=layers, to=FAMILIES, init=("new",), seed=(1, 1 << 63), tokenizer=("pipe.txt",))
    if draw.random() < 0.5:
        options += [f"--layers={draw.choice(layers)}", f"--to={draw.choice(FAMILIES)}"]
    for key in draw.sample(("window", "llama.window", "n_layers", "fox.d_conv", "mixers", "vocab_size"), k=1):
        options += [f"--set={key}={values.toml(draw)}"] if draw.random() < 0.3 else []
    return [_source(draw, place), _new(draw), *options]


def _inspect(draw: random.Random, place: Place) -> list[str]:
    texts = ("1 sheep", "", values.text(draw, nul=False), values.text(draw, nul=False))
    out = ["--out", _new(draw, ".html")] if draw.random() < 0.7 else ["--json"]
    sources = [_source(draw, place)] * draw.choice((1, 1, 2))
    return [*sources, f"--text={draw.choice(texts)[:300]}", *out]


def _report(draw: random.Random, place: Place) -> list[str]:
    folder = place.work / "results"
    kind = draw.choice(("compared", "compared", "probed"))
    shutil.copytree(place.base / kind, folder)
    _damage(draw, place, folder / RESULTS[kind])
    return [str(folder)]


def _probe(draw: random.Random, place: Place) -> list[str]:
    kept = place.work / "kept"
    shutil.copytree(place.base / "probed", kept)
    _damage(draw, place, kept / RESULTS["probed"])
    bad = (["--probes=x"], ["--device=tpu"], ["--workers=0"], ["--difficulty="], ["--steps=0"], ["--out=pipe.txt"])
    options = _options(draw, probes=("parity",), difficulty=("all",), steps=(1,), seeds=(1, 1001), workers=(1,))
    names = [draw.choice(("bigram", "gpt2.tiny", "gtp2", "", "pipe.txt", values.text(draw, nul=False)))]
    return [*names, f"--out={kept}", *options, *draw.choice(bad)]


def _reproduce(draw: random.Random, place: Place) -> list[str]:
    kept = place.work / "kept"
    shutil.copytree(place.base / "reproduced", kept)
    _damage(draw, place, kept / RESULTS["reproduced"])
    options = _options(draw, workers=(1, 0), out=("new", "pipe.txt"))
    bad = draw.choice((["mqar", "--device=tpu"], ["mqa"], [values.text(draw, nul=False)], ["mqar", f"--out={kept}"]))
    return [*bad, *options, *(["--workers=0"] if bad[0] == "mqar" else [])]


def _data(draw: random.Random, place: Place) -> list[str]:
    return [draw.choice(("show", "show", "shwo")), data_of(draw, place)]


def _sample(draw: random.Random, place: Place) -> list[str]:
    folder = place.work / "chat"
    shutil.copytree(place.base / "chat", folder)
    file = folder / "tokenizer_config.json"
    if draw.random() < 0.6:
        pieces = ("{{ messages }}", "{% for i in range(10**9) %}a{% endfor %}", "{{ 'a' * 10**9 }}", "{{ x.y }}", "{%",
                  "{{ messages.__class__ }}", "{{ raise_exception('\x1b[2J') }}", values.text(draw))  # fmt: skip
        file.write_text(json.dumps(json.loads(file.read_text()) | {"chat_template": draw.choice(pieces)}))
    else:
        _damage(draw, place, file)
    texts = _options(draw, prompt=("1 sheep",), system=("Count.",), n=(3,))
    return [str(folder), "--chat", "--prompt=1", *texts, "-n", "2"]


def _bench(draw: random.Random, place: Place) -> list[str]:
    kind = draw.choice(("decode", "train", "loss", "x"))
    options = _options(draw, rows=(1, 0), tokens=(1, 0), repeats=(1, 0), threads=(1, 2000), batch_size=(0,))
    bad = draw.choice((["--threads=0"], ["--repeats=0"], ["--repeats=x"]))
    return [kind, *([_source(draw, place)] if draw.random() < 0.3 else ["gtp2"]), *options, *bad]


def _puzzle(draw: random.Random, place: Place) -> list[str]:
    number = draw.choice(("1", "2", "0", "-1", "1000", "9" * 30, values.text(draw, nul=False)))
    ways = (["--hint"], ["--answer"], ["--out", "pipe.txt"], ["--out", ""], ["--hint", str(values.number(draw))[:500]])
    return [*draw.choice(([], [number])), *draw.choice(ways)]


def _new_model(draw: random.Random, place: Place) -> list[str]:
    return [draw.choice(("my-mixer", "gpt2", "A", "1", values.text(draw, nul=False))), "--out", _new(draw, ".py")]


COMMANDS = {
    "export": _export, "import": _import, "push": _push, "gguf": _gguf, "transplant": _transplant,
    "inspect": _inspect, "report": _report, "probe": _probe, "reproduce": _reproduce, "data": _data,
    "sample": _sample, "bench": _bench, "puzzle": _puzzle, "new": _new_model,
}  # fmt: skip
