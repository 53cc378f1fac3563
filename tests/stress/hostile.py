"""Loads manipulated runs: no code is executed, no link followed, no excessive memory allocated."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

from lmzoo.runs.run import RunSpec, load_run, train_run
from lmzoo.storage import checkpoints
from tests.stress import children, crafted, runs
from tests.stress.bench import Bench, Tally

SETTINGS = {"steps": 6, "checkpoint_every": 2, "eval_every": 2, "keep_checkpoints": 3}
SECONDS, ROOM = 20, 1 << 30  # upper bounds for loading a small run
NEVER = ("os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "pickle.find_class", "socket.connect")
CHANGING = ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate", "os.chmod")


def hostile(bench: Bench, count: int) -> Tally:
    """Load every `count`th manipulated run, load its checkpoint, and resume it."""
    tally = Tally()
    spec = bench.spec("gpt2", **SETTINGS)
    groups = {
        "refused": crafted.REFUSED,
        "not resumed": crafted.NOT_RESUMED,
        "passed over": crafted.PASSED_OVER,
        "miscounted": crafted.MISCOUNTED,
        "harmless": crafted.HARMLESS,
    }
    for kind, cases in groups.items():
        for name, craft in list(cases.items())[::count]:
            home = bench.place("prepared")
            run, outside = home / "run", home / "outside"
            shutil.copytree(bench.whole(spec), run)
            shutil.rmtree(checkpoints.path_of(run, 6))
            outside.mkdir()
            (outside / "secret").write_text("nobody's business")
            craft(run, outside)
            _use(bench, spec, home, kind, name, tally)
            shutil.rmtree(home)
            tally.done[kind] += 1
            bench.progress(f"hostile: {name}")
    return tally


def _use(bench: Bench, spec: RunSpec, home: Path, kind: str, name: str, tally: Tally) -> None:
    run, outside = home / "run", home / "outside"
    before = runs.content(outside)
    uses: dict[str, tuple[Callable[[], object], bool]] = {  # (what to do, must it be refused)
        "loaded": (lambda: load_run(run), kind == "refused"),
        "loaded alone": (lambda: load_run(run / crafted.STEP), kind in ("refused", "passed over")),
        "resumed": (lambda: train_run(spec, run, resume=True), kind in ("refused", "not resumed")),
    }
    for use, (work, must_refuse) in uses.items():
        child = children.run(lambda say, work=work: _watched(say, work, home, bench.folder))
        where = f"{name}, {use}"
        line = child.error
        if must_refuse:
            fine = child.code == children.REFUSED and children.LINE_BREAK not in line
        else:
            fine = child.code == children.DONE
        tally.check(fine, f"{where}: ended with {child.code}: {line}")
        tally.check(not child.said("seen"), f"{where}: {child.said('seen')}")
        tally.check(
            runs.content(outside) == before and not (outside / "hacked").exists(),
            f"{where}: it changed files outside of the run",
        )
    if kind in ("passed over", "miscounted"):
        aside = [path.name for path in (run / "checkpoints").glob("damaged-*")]
        tally.check(aside == ["damaged-step-00000004"], f"{name}: {aside} was set aside")


def _watched(say: children.Say, work: Callable[[], object], home: Path, folder: Path) -> None:
    """Run `work` with little memory and time, and report every call that a file must not cause."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, used + ROOM))
    signal.alarm(SECONDS)
    outside, allowed = str(home / "outside"), (str(home / "run"), str(folder / "cache"))

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if event.startswith(NEVER):
            say(f"seen {event} {arguments}")
        if event in CHANGING or event == "open":
            paths = [a for a in arguments if isinstance(a, str | bytes)]  # audit events hold no Path
            writing = event in CHANGING or (isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR))
            for path in (os.fsdecode(path) for path in paths if event != "open" or path == paths[0]):
                inside = not os.path.isabs(path) or path.startswith(allowed)
                if path.startswith(outside) or (writing and not inside):
                    say(f"seen {event} {path}")

    sys.addaudithook(watch)
    warnings.simplefilter("ignore")  # the warning that another checkpoint is used is tested elsewhere
    work()
