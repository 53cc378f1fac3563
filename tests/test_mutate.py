"""Tests scripts/mutate.py: the mutations it makes, the code it leaves alone, and its report."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"


def changes(source: str, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Return all mutated forms of a source."""
    monkeypatch.syspath_prepend(SCRIPTS)
    from mutations import mutations

    return {mutation.apply(source.encode()).decode() for mutation in mutations(source.encode())}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a < b <= c", {"(a <= b <= c)", "(a < b < c)"}),
        ("x is None and y", {"(x is None or y)", "(x is not None) and y"}),
        ("f(x) if y else z", {"f(x) if (not y) else z"}),
        ("a[1:]", {"a[(0):]", "a[(2):]"}),
        ("y = x.amax(dim=-1)", {"y = x.amin(dim=-1)", "y = x.amax(dim=(0))", "y = x.amax(dim=(-2))"}),
        ("y = min(a, b) + é", {"y = max(a, b) + é", "y = (min(a, b) - é)"}),
        ("y = cat([a, b])", set()),
        ("y = t.cat([a, b])", {"y = t.cat(([b, a]))"}),
        (
            "y = f(flag=True, reduction='mean')",
            {"y = f(flag=False, reduction='mean')", "y = f(flag=True, reduction='sum')"},
        ),
        ("x = f(x)", {"pass"}),
        ("x.add_(y)", {"pass"}),
        ("x[i] = y", {"pass"}),
        ("x[i + 1] = y", {"pass", "x[(i - 1)] = y", "x[i + (0)] = y", "x[i + (2)] = y"}),
        ("while x:\n    break", {"while (not x):\n    break", "while x:\n    pass"}),
        ("LIMIT = 1e-3", {"LIMIT = (1.001)"}),
        ("ENDS = (2, 3)", {"ENDS = ((1), 3)", "ENDS = ((3), 3)"}),
        ("T = x.shape[3]", {"T = x.shape[(2)]", "T = x.shape[(4)]"}),
        ("tokens = 3", {"tokens = (2)", "tokens = (4)"}),
        (
            "def f(a, b=0, *, c=True): return a",
            {
                "def f(a, b=(-1), *, c=True): return a",
                "def f(a, b=(1), *, c=True): return a",
                "def f(a, b=0, *, c=False): return a",
            },
        ),
        ("for x in range(0): pass", {"for x in range((-1)): pass", "for x in range((1)): pass"}),
        ("y = 'a' if x else 'b'", {"y = 'a' if (not x) else 'b'"}),
        ("@torch.no_grad()\ndef f(): return x", {"@(lambda function: function)\ndef f(): return x"}),
    ],
)
def test_mutations_are_made(source: str, expected: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert changes(source, monkeypatch) == expected


@pytest.mark.parametrize(
    "source",
    [
        '"""Text with 1 + 1."""',
        "def f(x: A[1]) -> B[2]: return x",
        "x: A[1] = y",
        "raise E(f'{a + 1}', 2)",
        "y = f'{a + 1}'",
        "if TYPE_CHECKING:\n    x = 1",
        "__all__ = ['a'] + b",
        "@dataclass(frozen=True)\nclass A:\n    pass",
        "y = zip(a, b, strict=True)",
        "idx = subject.tokens(2, min(n, 9) + 1, seed=1)",
        "y = torch.Generator().manual_seed(1000 * n + seed)",
        "def f(a, seed: int = 0, *, b, c=None): return a",
        "y = f(seed=3)",
        "for seed in range(3):\n    x = seed",
        "y = [x for seed in range(3)]",
        "TINY: Sizes = Sizes(a=4, b={'c': 8})",
        "ROWS, T = 8, g((3, 16))",
        "y = f', {x + 1}' if x > 1 else ''",
    ],
)
def test_mutations_leave_alone_what_no_test_should_notice(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert changes(source, monkeypatch) == set()


MODULE = """
def first_above(values, limit):
    i = 0
    while values[i] < limit:
        i += 1
    return i

def same(x):
    return x
"""
TEST = """
from tiny import first_above, same

def test_same():
    with open("ran.txt", "a") as file:
        file.write("once ")
    assert same("x") == "x"

def test_first_above():
    assert first_above([1, 2, 4], 3) == 2
"""


def test_mutate_reports_found_and_surviving_mutations(tmp_path: Path) -> None:
    for name in ("mutate.py", "mutations.py"):
        (tmp_path / "scripts").mkdir(exist_ok=True)
        shutil.copy(SCRIPTS / name, tmp_path / "scripts")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tiny.py").write_text(MODULE)
    (tmp_path / "tests" / "test_tiny.py").write_text(TEST)
    main = "import sys; sys.path.insert(0, 'scripts'); import mutate; mutate.SLACK = 1.0; mutate.HEAVY = ['pdb']; "
    main += "sys.exit(mutate.main())"
    command = [sys.executable, "-c", main, "tiny.py", "--json", "out.json", "--workers", "2"]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    run = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, env=environment, timeout=60, check=False
    )
    assert run.returncode == 1, run.stderr
    fates = json.loads((tmp_path / "out.json").read_text())
    found = {(fate["mutant"]["mutation"]["before"], fate["mutant"]["mutation"]["after"]): fate["how"] for fate in fates}
    assert found == {
        ("0", "(-1)"): "test",  # values[-1] is above the limit already
        ("0", "(1)"): "survived",  # the test cannot tell where the search begins
        ("values[i] < limit", "(values[i] <= limit)"): "survived",  # nor what happens at the limit itself
        ("i += 1", "pass"): "timeout",
        ("1", "(0)"): "timeout",
        ("1", "(2)"): "survived",
    }
    assert fates[0]["by"] == "tests/test_tiny.py::test_first_above"
    assert "| tiny.py | 6 | 3 | 2 | 3 | 50.0% |" in run.stdout
    assert (tmp_path / "tiny.py").read_text() == MODULE
    assert (tmp_path / "ran.txt").read_text() == "once ", "no mutation is in the lines that this test executes"
    command += ["--again", "out.json", "--sample", "2"]
    run = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, env=environment, timeout=60, check=False
    )
    assert "| tiny.py | 2 | 0 | 0 | 2 | 0.0% |" in run.stdout, run.stderr


def test_mutate_imports_modules_that_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(SCRIPTS)
    from mutate import HEAVY

    assert [name for name in HEAVY if find_spec(name) is None] == []
    assert not any(name.startswith("lmzoo") for name in HEAVY)


def test_mutate_finds_the_tests_of_layers_and_checks() -> None:
    paths = ("lmzoo/layers/retention.py", "lmzoo/conformance/reach.py", "lmzoo/conformance/usage.py")
    command = [sys.executable, "-c", f"import mutate; print(*map(mutate.stages, {paths}))"]
    run = subprocess.run(command, cwd=SCRIPTS, capture_output=True, text=True, timeout=60, check=True)
    for test in (
        "layers/test_retention.py",
        "backbones/test_retnet.py",
        "[retnet-",
        "test_reach.py",
        "--check=long_gradients",
        "test_usage.py",
        "[share_of_experts_not_declared]",  # usage.py has no check, and counting.py, which imports it, has this one
    ):
        assert test in run.stdout
    museum = (SCRIPTS.parent / "tests/museum/test_museum.py").read_text(encoding="utf-8")
    named = set(re.findall(r"test_museum\.py::(\w+)\[", run.stdout))
    assert len(named) == 2
    assert all(f"def {name}(" in museum for name in named)
