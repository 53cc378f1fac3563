"""Tests scripts/mutate.py: the mutations it makes, the code it leaves alone, and its report."""

from __future__ import annotations

import json
import os
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
        ("while x:\n    break", {"while (not x):\n    break", "while x:\n    pass"}),
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
"""
TEST = """
from tiny import first_above

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
    paths = ("lmzoo/layers/retention.py", "lmzoo/conformance/reach.py")
    command = [sys.executable, "-c", f"import mutate; print(*map(mutate.stages, {paths}))"]
    run = subprocess.run(command, cwd=SCRIPTS, capture_output=True, text=True, timeout=60, check=True)
    for test in (
        "layers/test_retention.py",
        "backbones/test_retnet.py",
        "[retnet-",
        "test_reach.py",
        "-long_gradients]",
    ):
        assert test in run.stdout
