"""Cases of the command line: options with drawn values, in this process; some as real processes."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

from tests.fuzz import values
from tests.fuzz.watch import Case, Exit, Place, command

COMMAND_SECONDS = 60  # the first training of a family checks it, which takes seconds
PROCESS_SECONDS = 60  # to start Python, import torch and train two steps on a busy machine
SMALL = {"steps": "2", "batch_size": "2", "context_length": "16", "d_model": "16", "n_layers": "1", "n_heads": "2"}
NAMES = ("gpt2", "llama.tiny", "bigram", "lstm.tiny", "mamba.tiny", "gpt2.1m", "gtp2", "", ".", "gpt2.", "mine")
PLUGINS = (
    "1 / 0", "import sys; sys.exit(0)", "raise KeyboardInterrupt", "def f(:", "x = [1] * 10",
    "raise SystemExit('\\x1b')",
    "import lmzoo\n@lmzoo.register_model('gpt2')\nclass A: pass",
    "import lmzoo\n@lmzoo.register_model('mine')\nclass A: pass",
    "import lmzoo\nfrom torch import nn\n@lmzoo.register_model('mine')\nclass A(lmzoo.LanguageModel):\n"
    "    def __init__(self, config):\n        super().__init__(config)\n"
    "        self.t = nn.Embedding(config.vocab_size, 8)\n"
    "        self.head = nn.Linear(9, config.vocab_size)\n    def features(self, idx, state=None):\n"
    "        return self.t(idx), None\n",
)  # fmt: skip


def small_settings(draw: random.Random) -> list[str]:
    """Draws `--set` options of a short run, of which one is often wrong."""
    settings = dict(SMALL)
    keys = (
        *SMALL,
        "learning_rate",
        "seed",
        "dropout",
        "precision",
        "beta1",
        "warmup_steps",
        "eval_every",
        "vocab_size",
    )
    if draw.random() < 0.7:
        settings[draw.choice(keys)] = values.toml(draw)
    if draw.random() < 0.1:
        settings[values.text(draw, nul=False)] = values.toml(draw)
    # More steps than a few are no fault, but take their time.
    settings = {key: text for key, text in settings.items() if not (key == "steps" and _is_long(text))}
    settings.setdefault("steps", "2")
    return [f"--set={key}={text}" for key, text in settings.items()]


def _is_long(text: str) -> bool:
    return text.isdigit() and 50 < int(text[:30]) <= 10**9


def case(draw: random.Random, place: Place) -> Case:
    """Draws a command, its options and its files."""
    name = draw.choice(("train", "train", "train", "sample", "sample", "eval", "show", "list", "check", "compare"))
    run = place.work / "run"
    if name in ("sample", "eval") or draw.random() < 0.1:
        shutil.copytree(place.base / "run", run)
    arguments = [name, *globals()[f"_{name}"](draw, place, run)]
    if draw.random() < 0.1:
        source = place.work / draw.choice(("mine.py", "mine", "m\x1bine.py"))
        source.write_text(draw.choice(PLUGINS))
        arguments += ["--plugin", draw.choice((str(source), "mine", "./mine", "", values.text(draw, nul=False)))]
    if draw.random() < 0.05:
        arguments.insert(draw.randrange(len(arguments) + 1), values.text(draw, nul=False))
    arguments = [argument[:100_000].replace("\0", "") for argument in arguments]

    def work() -> None:
        os.chdir(place.work)
        command(*arguments)

    return Case(f"lmzoo {arguments!r}", work, COMMAND_SECONDS)


def process(draw: random.Random, place: Place) -> Case:
    """The same as `case` in a process of its own, with limits of its own."""
    arguments = ["train", *_train(draw, place, place.work / "run")]
    arguments += draw.choice(([], [], ["--nproc", draw.choice(("0", "-1", "99999999", "1e9", "3"))]))
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    if draw.random() < 0.3:
        environment[draw.choice(("RANK", "WORLD_SIZE", "LMZOO_REGISTRY"))] = values.text(draw, nul=False)
    words = [os.fsencode(word.replace("\0", "")[:100_000]) for word in arguments]

    def work() -> None:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "lmzoo", *words],
            cwd=place.work, env=environment, capture_output=True, text=True, errors="replace", timeout=PROCESS_SECONDS,
        )  # fmt: skip
        if "Traceback" in done.stderr:
            raise RuntimeError(done.stderr[-800:])
        raise Exit(done.returncode, done.stderr)

    return Case(f"process: lmzoo {arguments!r}", work, 2 * PROCESS_SECONDS)


def data_of(draw: random.Random, place: Place) -> str:
    """Draws the value of `--data`: a text, or a file of another kind or name."""
    good = str(place.base / "text.txt")
    if draw.random() < 0.6:
        return good
    made = place.work / draw.choice(("a.txt", "a\x7f.txt", "a\x1b[2J.txt", "\udcff.txt", "d/a.txt", "a\n.txt"))
    made.parent.mkdir(exist_ok=True)
    content = (place.base / "text.txt").read_bytes()
    made.write_bytes(values.damaged(draw, content) if draw.random() < 0.5 else content)
    others = (str(made), str(made.parent), str(place.pipe), str(place.work / "*.txt"), "/dev/zero",
              "/dev/null", "/dev/tty",
              "pydcos", "hf:", "hf:" + str(place.work), "hf:x,y", values.text(draw),
              "a" * 300, "b/" * 3000)  # fmt: skip
    return draw.choice(others)


def _out(draw: random.Random, place: Place) -> list[str]:
    if draw.random() < 0.7:
        return ["--out", "out"]
    places = (
        "pipe.txt",
        "run",
        "/dev/null",
        "/dev/full",
        "/proc/x",
        "a" * 256,
        "a/" * 2100 + "b",
        "x/" + "a" * 300,
        "",
        ".",
    )
    return [
        "--out",
        draw.choice((*places, values.text(draw, nul=False).replace("/", "_").replace("..", "_"), "out/new/deep")),
    ]


def _train(draw: random.Random, place: Place, run: Path) -> list[str]:
    name = draw.choice(NAMES) if draw.random() < 0.4 else "gpt2"
    arguments = [name, "--data", data_of(draw, place), *_out(draw, place), *small_settings(draw)]
    if draw.random() < 0.15:
        arguments += ["--tokenizer", draw.choice(("byte", "bpe:256", "bpe:1", "bpe:99999999999", values.text(draw)))]
    if draw.random() < 0.15:
        file = place.work / "settings.toml"
        good = b"[model]\nd_model = 16\n[train]\nsteps = 2\nlearning_rate = 0.1\n"
        file.write_bytes(values.damaged(draw, good) if draw.random() < 0.8 else good)
        arguments += [
            "--config",
            draw.choice((str(file), str(file), str(place.pipe), "/dev/zero", str(place.work), "")),
        ]
        arguments.append("--set=steps=2")
    if draw.random() < 0.1:
        arguments.append("--resume")
    return arguments


def _sample(draw: random.Random, place: Place, run: Path) -> list[str]:
    arguments = [
        draw.choice((str(run), str(run), str(run), str(run / "checkpoints"), str(place.pipe), "gpt2", "/dev/zero"))
    ]
    options = ("temperature", "top-k", "top-p", "min-p", "repetition-penalty", "frequency-penalty", "typical-p", "seed",
               "samples", "prompt", "stop", "draft", "weights")  # fmt: skip
    for option in draw.sample(options, k=draw.choice((0, 1, 1, 2))):
        drawn = values.text(draw, nul=False) if option in ("prompt", "stop", "draft") else str(values.number(draw))
        arguments.append(f"--{option}={drawn[:500]}")
    tokens = draw.choice(("0", "1", "5", "-1", "1" * 30, "x", "1e3"))
    return [*arguments, "-n", tokens]


def _eval(draw: random.Random, place: Place, run: Path) -> list[str]:
    arguments = [draw.choice((str(run), str(run), str(place.work), str(place.pipe), ""))]
    if draw.random() < 0.5:
        arguments += ["--data", data_of(draw, place)]
    if draw.random() < 0.4:
        option = draw.choice(("--length", "--stride"))
        arguments += [option, draw.choice(("16", "40", "0", "-1", str(10**18), "x"))]
    return [*arguments, *draw.choice(([], ["--json"], ["--by-position"]))]


def _show(draw: random.Random, place: Place, run: Path) -> list[str]:
    arguments = [draw.choice(NAMES), "--vocab-size", str(draw.choice((65, 0, -1, 10**9, 10**18, "x")))]
    if draw.random() < 0.3:
        measure = draw.choice(
            ("params=1k", "params=1e400", "flops=-1", "state=nan", "x=1", "params", values.text(draw))
        )
        arguments += ["--match", measure]
    return [*arguments, *draw.choice(([], ["--json"]))]


def _list(draw: random.Random, place: Place, run: Path) -> list[str]:
    entry = place.work / "registry" / draw.choice(("gpt2", "mine", "m\x1bine"))
    entry.mkdir(parents=True)
    good = b'[family]\ntitle = "T"\nyear = 2019\n[tiny]\nsource = "s"\n[tiny.model]\nd_model = 8\n'
    (entry / "presets.toml").write_bytes(values.damaged(draw, good))
    os.environ["LMZOO_REGISTRY"] = draw.choice(
        (str(place.work / "registry"), values.text(draw, nul=False), "/dev/zero")
    )
    return [draw.choice(("*", "gpt*", "[", values.text(draw))), *draw.choice(([], ["--json"]))]


def _check(draw: random.Random, place: Place, run: Path) -> list[str]:
    only = draw.choice((["--only", "shapes"], ["--only", "x"], ["--only", values.text(draw)]))
    return [draw.choice(("bigram", "gtp2", "mine.py", "", str(place.pipe), values.text(draw))), *only]


def _compare(draw: random.Random, place: Place, run: Path) -> list[str]:
    names = [draw.choice(("gtp2", "", "bigram", values.text(draw))) for _ in range(draw.choice((0, 1, 2)))]
    bad = draw.choice((["--set=steps=0"], ["--set=eval_tokens=1"], ["--data", str(place.pipe)], ["--out", "pipe.txt"]))
    number = draw.choice(("0", "-1", "x", "nan", "1e999", "", values.text(draw)))
    options = (
        "--seeds=",
        "--match=params=",
        "--budget=tokens=",
        "--budget=",
        "--tune=learning_rate=1,",
        "--optimizers=adamw,",
        "--sizes=1k,2k,",
        "--tune=",
        "--tune=warmup_steps=1,",
        "--tune=min_learning_rate=1%,",
        "--stride=",
    )
    return [*names, *small_settings(draw), *bad, *draw.choice(([], [draw.choice(options) + number]))]
