#!/usr/bin/env python3
"""Mutation testing: puts small mistakes into the contract, one at a time, and counts how many of them the tests find.

    scripts/mutate.py                               model, state, losses, sampling, ops: all mutations, by their tests
    scripts/mutate.py lmzoo/losses.py --list        lists the mutations of a file
    scripts/mutate.py lmzoo/conformance/*.py --sample 10 --seed 1       ten mutations of each file, drawn at random
    scripts/mutate.py lmzoo/layers/*.py --json OUT                      writes the fate of each mutation to OUT
    scripts/mutate.py lmzoo/layers/*.py --again OUT                     runs those again that survived in OUT

No file is changed. The heavy libraries are imported once; each mutation runs in a forked process, which imports lmzoo
with the mutated module from memory, and runs pytest until a test fails, quick tests first, and of the tests only those
that execute the mutated lines. A mutation whose tests hang counts as found.
The exit code is 1 if less than 90 % are found. Needs a system with fork.
"""

# ruff: noqa: E402 (the environment is chosen before its packages are imported)

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if (ROOT / ".venv/bin/python").exists() and Path(sys.prefix).resolve() != (ROOT / ".venv").resolve():
    os.execv(ROOT / ".venv/bin/python", [str(ROOT / ".venv/bin/python"), *sys.argv])
os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported: a forked process cannot use its parent's threads
os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = (
    "1"  # no test needs plug-ins, and pytest warns about modules imported before it
)

import argparse
import ast
import atexit
import gc
import importlib
import importlib.util
import json
import random
import re
import resource
import shutil
import signal
import tempfile
import threading
import time
from collections import deque
from collections.abc import Generator
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from types import CodeType, FrameType
from typing import Any

import pytest

sys.path.insert(0, str(ROOT / "scripts"))
from mutations import Mutation, mutations

# The tests of a file in stages: later ones run only if nothing has failed. For other files, see `stages`.
TESTS = {
    "lmzoo/losses.py": [["tests/test_losses.py"], ["tests/test_model.py"]],
    "lmzoo/state/leaves.py": [["tests/state"], ["tests/test_model.py"]],
    "lmzoo/state/tree.py": [["tests/state"], ["tests/test_model.py"]],
    "lmzoo/state/saving.py": [["tests/state"]],
    "lmzoo/model.py": [["tests/test_model.py"], ["tests/test_decoder.py", "tests/generation", "tests/backbones"]],
    "lmzoo/ops/attention.py": [["tests/ops/test_attention.py"]],
    "lmzoo/ops/rope.py": [["tests/ops/test_rope.py"]],
    "lmzoo/ops/causal_conv1d.py": [["tests/ops/test_causal_conv1d.py"]],
    "lmzoo/ops/lstm.py": [["tests/ops/test_lstm.py"]],
    "lmzoo/ops/selective_scan.py": [["tests/ops/test_selective_scan.py"]],
    "lmzoo/sampling.py": [["tests/test_sampling.py"]],
}
MANY = 12  # broken models
SIGNATURES = "tests/test_docs.py::test_the_contract_lists_every_layer_with_its_signature"
# Imported before forking; lmzoo itself must not be.
HEAVY = ["torch", "torch._dynamo", "torch._functorch.aot_autograd", "torch.testing._internal.optests", "einops"]
HEAVY += ["torch._inductor.compile_fx", "einops._torch_specific", "pydantic.type_adapter", "rich", "pdb", "tomllib"]
HEAVY += ["hypothesis", "safetensors.torch", "tokenizers", "transformers.models.gpt2.modeling_gpt2"]
HEAVY += [f"transformers.models.{name}.modeling_{name}" for name in ("llama", "mistral", "mamba")]

SHARE_WANTED = 0.90
# Limit for a test of a mutant, and for all of them: SLACK seconds plus TIMES times the duration without mutation.
SLACK, TIMES = 10.0, 5.0
MEMORY = 4 << 30  # bytes that a mutated run may allocate in addition to the libraries


@dataclass(frozen=True)
class Mutant:
    """A file with one mutation; the baseline if it has none."""

    path: str  # relative to the root
    mutation: Mutation | None


@dataclass(frozen=True)
class Fate:
    """The end of a mutant: "survived", or found by "test", "crash" (of the process) or "timeout"."""

    mutant: Mutant
    how: str
    by: str  # the first test that failed
    seconds: float


class _MutantFinder(MetaPathFinder, SourceFileLoader):
    """Imports one module from a given source; all other imports are unchanged."""

    def __init__(self, path: Path, module: str, source: bytes) -> None:
        SourceFileLoader.__init__(self, module, str(path))
        self.source = source

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if fullname != self.name:
            return None
        return importlib.util.spec_from_file_location(fullname, self.path, loader=self)

    def get_code(self, fullname: str) -> CodeType:
        return compile(self.source, self.path, "exec", dont_inherit=True)


class _Watch:
    """A pytest plug-in for the tests of a mutant: quick ones first, in limited time, only those that can find it.

    Without a mutation it measures the seconds of each test, and the lines of the file `path` that it executes; else
    these are given as `usual` and `covered`. `failed` is the first failure.
    """

    def __init__(
        self, mutant: Mutant, usual: dict[str, float] | None = None, covered: dict[str, list[int]] | None = None
    ) -> None:
        self.path = str(ROOT / mutant.path)
        self.usual = usual or {}
        self.seconds: dict[str, float] = {}
        self.lines: dict[str, list[int]] = {}
        self.failed = ""  # the first test or file that failed
        self.useless = set[str]()  # tests that do not execute the mutated lines; empty if no test does: an import may
        if mutant.mutation is not None and covered is not None:
            changed = {mutant.mutation.line + i for i in range(mutant.mutation.before.count("\n") + 1)}
            useless = {test for test, lines in covered.items() if changed.isdisjoint(lines)}
            self.useless = useless if len(useless) < len(covered) else set()

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if item.nodeid not in self.useless]
        items.sort(key=lambda item: self.usual.get(item.nodeid, 0.0))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Record the lines that a test executes in the file, in all threads of this process."""
        if self.usual:
            return (yield)
        found = set[int]()

        def line(frame: FrameType, _event: str, _argument: object) -> Any:
            found.add(frame.f_lineno)
            return line

        def call(frame: FrameType, _event: str, _argument: object) -> Any:
            here = frame.f_code.co_filename == self.path and frame.f_code.co_name != "<module>"
            return line if here else None

        threading.settrace(call)
        sys.settrace(call)
        try:
            return (yield)
        finally:
            sys.settrace(None)
            threading.settrace(None)  # type: ignore[arg-type]
            self.lines[item.nodeid] = sorted(found)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        if self.usual:  # ends the process after as much CPU time: the machine may be slower than before
            signal.setitimer(signal.ITIMER_PROF, SLACK + TIMES * self.usual.get(nodeid, 0.0))

    def pytest_runtest_logfinish(self) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration
        if report.failed:
            self.failed = self.failed or report.nodeid

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.failed = self.failed or report.nodeid


def stages(path: str) -> list[list[str]]:
    """Return the tests of a file: from `TESTS`, or the test file of its name and those of its package."""
    mirrored = str(Path("tests", *Path(path).parts[1:-1], f"test_{Path(path).name}"))
    if path.startswith("lmzoo/conformance/"):
        return museum(path, mirrored)
    if path.startswith("lmzoo/layers/"):
        return [[mirrored], *families(path)]
    return TESTS.get(path, [[mirrored]])


def families(path: str) -> list[list[str]]:
    """Return the other tests of a layer: its documented signature, and the references and the checks of a family.

    The family is the one that imports the layer, itself or through other layers, and the fewest others.
    """

    def imported(file: Path) -> set[str]:
        return set(
            re.findall(r"^from lmzoo\.(layers\.\w+|decoder) import", file.read_text(encoding="utf-8"), re.MULTILINE)
        )

    users = {f"layers.{Path(path).stem}"}
    backbones = {file.stem: imported(file) for file in sorted((ROOT / "lmzoo/backbones").glob("*.py"))}
    while not (found := [name for name, used in backbones.items() if used & users]):
        others = [*(ROOT / "lmzoo/layers").glob("*.py"), ROOT / "lmzoo/decoder.py"]
        more = {
            ".".join(file.relative_to(ROOT / "lmzoo").with_suffix("").parts)
            for file in others
            if imported(file) & users
        }
        if more <= users:
            return [[SIGNATURES]]
        users |= more
    family = min(found, key=lambda name: len(backbones[name]))
    checks = ["tests/conformance/test_registry.py", "-k", f"[{family}-"]
    return [[SIGNATURES], [f"tests/backbones/test_{family}.py"], checks]


def museum(path: str, mirrored: str) -> list[list[str]]:
    """Return the tests of a module of checks: its own and the broken models that its checks reject, then sound models.

    A module without checks has its own tests, then the broken models of the modules that import it, themselves or
    through others, or else of all modules; if these are many, one of each check.
    """
    caught = {
        exhibit.stem: re.search(r'^CAUGHT_BY = "(\w+)"', exhibit.read_text(encoding="utf-8"), re.MULTILINE)
        for exhibit in sorted((ROOT / "tests/museum/exhibits").glob("*.py"))
    }
    rejects = {name: match[1] for name, match in caught.items() if match}
    modules = {file.stem: ast.parse(file.read_bytes()).body for file in (ROOT / "lmzoo/conformance").glob("[!_]*.py")}
    users, more = {Path(path).stem}, {Path(path).stem}
    while not (checks := {*rejects.values()} & {name for user in users for name in _functions(modules[user])}) and more:
        more = {name for name, body in modules.items() if users & _imports(body)} - users
        users |= more
    test = "tests/museum/test_museum.py::test_"
    is_used = len(users) > 1
    names = [name for name, check in rejects.items() if check in checks or (is_used and not checks)]
    if is_used and len(names) > MANY:
        names = list({rejects[name]: name for name in names}.values())
    broken = [f"{test}exhibit_fails_its_check[{name}]" for name in names]
    if is_used:
        return [[mirrored], broken]
    first = [mirrored, *broken]
    # Not those that need a model of the caller, nor `save_and_load`, which has a test of its own for all sound models.
    tried = sorted(check for check in checks if not check.startswith("own_") and check != "save_and_load")
    models = sorted((ROOT / "tests/museum/sound").glob("[!_]*.py"))[::6]
    sound = [f"{test}sound_model_passes_all_checks[{model.stem}]" for model in models]
    return [first, [*sound, *(f"--check={check}" for check in tried)]] if tried else [first]


def _functions(body: list[ast.stmt]) -> set[str]:
    """Return the names of the functions of a module."""
    return {node.name for node in body if isinstance(node, ast.FunctionDef)}


def _imports(body: list[ast.stmt]) -> set[str]:
    """Return the modules of lmzoo.conformance that a module imports."""
    found = [(node.module or "", node.names) for node in body if isinstance(node, ast.ImportFrom)]
    whole = {name.name for module, names in found if module == "lmzoo.conformance" for name in names}
    return whole | {module.rpartition(".")[2] for module, _ in found if module.startswith("lmzoo.conformance.")}


def run_tests(mutant: Mutant, first: list[str], usual: Path, most: int | None, report: int) -> int:
    """Run the tests of a mutant in the forked process, the tests `first` before all others; return 0 if all pass.

    Writes the name of a failed test to the pipe `report`. Without a mutation, writes the seconds and the executed lines
    of all tests to the file `usual`, else reads them there.
    """
    if Path("/proc/self/statm").exists():
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    if mutant.mutation is not None:
        source = mutant.mutation.apply((ROOT / mutant.path).read_bytes())
        module = ".".join(Path(mutant.path).with_suffix("").parts)
        sys.meta_path.insert(0, _MutantFinder(ROOT / mutant.path, module, source))
    watch = _Watch(mutant) if mutant.mutation is None else _Watch(mutant, *json.loads(usual.read_text()))
    tests = stages(mutant.path)[:most]
    for arguments in [first, *tests] if first else tests:
        options = ["-x", "-q", "-p", "no:cacheprovider", "-W", "error", f"--rootdir={ROOT}"]
        code = int(pytest.main([*options, *arguments], plugins=[watch]))
        if arguments is first and code in (pytest.ExitCode.USAGE_ERROR, pytest.ExitCode.NO_TESTS_COLLECTED):
            watch.failed = ""
            continue  # no such test: the names of parametrized tests may depend on the mutated code
        if code == pytest.ExitCode.NO_TESTS_COLLECTED and watch.useless:
            continue
        if code != 0:
            os.write(report, f"{watch.seconds.get(watch.failed, 0.0)} {watch.failed}".encode()[:2000])
            return code
    if mutant.mutation is None:
        usual.write_text(json.dumps([watch.seconds, watch.lines]))
    return 0


def fork(mutant: Mutant, first: list[str], usual: Path, most: int | None) -> tuple[int, int]:
    """Start the tests of a mutant in a new process; return its id and the pipe for the name of a failed test."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writer)
        return pid, reader
    code = 1
    try:
        os.setpgid(0, 0)  # so that processes started by the tests end with them
        silence = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(silence, stream)
        code = run_tests(mutant, first, usual, most, writer)
    finally:
        os._exit(code)  # without the cleanup of the parent
    raise AssertionError("os._exit never returns")


def fates(
    mutants: list[Mutant],
    limits: dict[str, float],
    folder: Path,
    workers: int = 1,
    *,
    most: int | None = None,
    minutes: float = float("inf"),
    progress: bool = True,
) -> list[Fate]:
    """Run all mutants, `workers` at a time; `limits` holds the seconds that the tests of a file may take.

    `folder` keeps the seconds of the tests of each file. Only the first `most` stages run. After `minutes` no
    further mutant is started.
    """
    waiting, ended, end = deque(mutants), list[Fate](), time.monotonic() + 60 * minutes
    finders: dict[str, dict[str, float]] = {
        name: {} for name in limits
    }  # tests that found a mutant run first for the next
    running: dict[int, tuple[Mutant, int, float]] = {}
    while waiting or running:
        if time.monotonic() > end:
            waiting.clear()
        while waiting and len(running) < workers:
            mutant = waiting.popleft()
            tests = finders[mutant.path]
            usual = folder / f"{mutant.path.replace('/', '-')}.json"
            pid, reader = fork(mutant, sorted(tests, key=tests.__getitem__)[:10], usual, most)
            running[pid] = (mutant, reader, time.monotonic())
        for pid, (mutant, reader, started) in list(running.items()):
            seconds = time.monotonic() - started
            late = seconds > limits[mutant.path]
            if late:
                os.killpg(pid, signal.SIGKILL)
            done, status = os.waitpid(pid, 0 if late else os.WNOHANG)
            if done:
                if os.WIFSIGNALED(status):
                    late = late or os.WTERMSIG(status) == signal.SIGPROF
                    with suppress(ProcessLookupError):  # processes that the tests have left
                        os.killpg(pid, signal.SIGKILL)
                took, _, by = os.read(reader, 2000).decode(errors="replace").partition(" ")
                os.close(reader)
                del running[pid]
                if "::" in by:  # a test, not a file that failed to import
                    finders[mutant.path][by] = float(took)
                found = "crash" if os.WIFSIGNALED(status) else "test"
                ended.append(Fate(mutant, "timeout" if late else found if status else "survived", by, seconds))
                if progress and not status:
                    print(f"survived {describe(mutant)}", flush=True)
                if progress and (len(ended) % 25 == 0 or len(ended) == len(mutants)):
                    survived = sum(fate.how == "survived" for fate in ended)
                    print(f"{len(ended)}/{len(mutants)} run, {survived} survived", file=sys.stderr, flush=True)
        time.sleep(0.005)
    return ended


def describe(mutant: Mutant) -> str:
    """Describe a mutant: `file:line: before -> after | the line`."""
    assert mutant.mutation is not None
    line = (ROOT / mutant.path).read_text(encoding="utf-8").splitlines()[mutant.mutation.line - 1].strip()
    before = " ".join(mutant.mutation.before.split())
    return f"{mutant.path}:{mutant.mutation.line}: {before} -> {mutant.mutation.after}   | {line}"


def table(results: list[Fate]) -> str:
    """Make a Markdown table: per file the mutants, killed (also by timeout), survived, and the share killed."""
    rows = ["| file | mutants | killed | of these by timeout | survived | share |", "|---|---:|---:|---:|---:|---:|"]
    files = sorted({fate.mutant.path for fate in results})
    for name in [*files, "all"]:
        hows = [fate.how for fate in results if name in (fate.mutant.path, "all")]
        survived = hows.count("survived")
        killed, share = len(hows) - survived, 1 - survived / len(hows)
        rows.append(f"| {name} | {len(hows)} | {killed} | {hows.count('timeout')} | {survived} | {share:.1%} |")
    return "\n".join(rows)


def main() -> int:
    """Parse the arguments, run the mutants, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", help="files below the root; default: the contract")
    parser.add_argument("--list", action="store_true", help="print the mutations and run nothing")
    parser.add_argument("--sample", type=int, metavar="N", help="run N mutations of each file, drawn at random")
    parser.add_argument("--seed", type=int, default=0, help="random seed of the sample")
    parser.add_argument("--workers", type=int, default=1, help="number of parallel processes (default 1)")
    parser.add_argument("--stages", type=int, metavar="N", help="run only the first N stages of the tests of a file")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no mutant after this time")
    parser.add_argument("--again", type=Path, metavar="OUT", help="run only those that survived in this file")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the fate of each mutant to this file")
    arguments = parser.parse_args()
    files = [str(Path(name).resolve().relative_to(ROOT)) for name in arguments.files] or list(TESTS)
    os.chdir(ROOT)
    found = {name: [Mutant(name, mutation) for mutation in mutations(Path(name).read_bytes())] for name in files}
    if arguments.again is not None:
        fates_before = json.loads(arguments.again.read_text(encoding="utf-8"))
        survived = [fate["mutant"] for fate in fates_before if fate["how"] == "survived"]
        found = {name: [mutant for mutant in mutants if asdict(mutant) in survived] for name, mutants in found.items()}
    mutants = [mutant for of_file in found.values() for mutant in of_file]
    if arguments.sample is not None:
        drawn = [random.Random(arguments.seed).sample(of_file, len(of_file)) for of_file in found.values()]
        # The first of each file, then the second of each: when the time is over, no file has been left out.
        mutants = [of_file[i] for i in range(arguments.sample) for of_file in drawn if i < len(of_file)]
    files = [name for name in files if any(mutant.path == name for mutant in mutants)]
    if arguments.list:
        print(*map(describe, mutants), sep="\n")
        return 0
    if not mutants:
        print("no mutants")
        return 0
    sys.path.insert(0, str(ROOT))
    for module in HEAVY:
        importlib.import_module(module)
    assert not any(name.split(".")[0] == "lmzoo" for name in sys.modules)
    gc.freeze()  # imported modules stay shared between the processes

    folder = Path(tempfile.mkdtemp(prefix="mutate-"))
    atexit.register(shutil.rmtree, folder)
    limit = dict.fromkeys(files, 1800.0)
    baselines = fates([Mutant(name, None) for name in files], limit, folder, most=arguments.stages, progress=False)
    for fate in baselines:
        print(f"{fate.mutant.path}: its tests take {fate.seconds:.1f} s", file=sys.stderr)
        if fate.how != "survived":
            print(f"mutate: {fate.mutant.path} fails unmutated: {fate.by or fate.how}", file=sys.stderr)
            return 2
    limits = {fate.mutant.path: SLACK + TIMES * fate.seconds for fate in baselines}
    results = fates(mutants, limits, folder, arguments.workers, most=arguments.stages, minutes=arguments.minutes)
    results.sort(key=lambda fate: mutants.index(fate.mutant))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps([asdict(fate) for fate in results], indent=1), encoding="utf-8")
    print(table(results))
    return int(sum(fate.how != "survived" for fate in results) < SHARE_WANTED * len(results))


if __name__ == "__main__":
    sys.exit(main())
