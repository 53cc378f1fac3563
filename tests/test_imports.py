"""What may import what, and what importing lmzoo must not cost."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "lmzoo"
ANY = None

# For each room: the rooms of lmzoo it may import (itself always). Not named here: errors and config, which all may.
MAY_IMPORT: dict[str, set[str] | None] = {
    "errors": set(),
    "commit": set(),
    "tensorfile": {"commit"},
    "config": set(),
    "ops": set(),
    "losses": {"ops"},
    "state": {"commit", "tensorfile"},
    "layers": {"ops", "state", "losses"},
    "flops": {"model"},  # for its type
    "model": {
        "flops",
        "state",
        "losses",
        "sampling",
        "generation",
        "saving",
    },  # the last three lazily, by the final methods
    "mixer_model": {"model", "layers", "state"},
    "registry": {"model"},  # for its types
    "backbones": {"model", "layers", "ops", "registry", "state", "losses"},
    "data": set(),
    "machine": set(),
    "randomness": set(),
    "sampling": {"randomness"},
    "generation": {"sampling", "randomness", "model", "state"},
    "inference": {"model", "layers", "state"},
    "__init__": ANY,
    "cli": ANY,
    "__main__": ANY,
}
HARNESS = {"train", "compare", "conformance", "bench", "saving"}  # know the contract and the registry, never a backbone
ONLY_PACKAGES = {"ops": {"torch", "einops", "__future__", "math", "collections", "typing"}}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: import by full name"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_rooms_import_only_what_they_may(path: Path) -> None:
    here = room(path)
    rooms = {name.split(".")[1] for name in imported(path) if name.startswith("lmzoo.") and name.count(".")} - {here}
    if here in HARNESS:
        assert not rooms & {"backbones", "layers", "cli"}, rooms
    elif MAY_IMPORT[here] is not ANY:
        extra = rooms - MAY_IMPORT[here] - {"errors", "config"}
        extra = {name for name in extra if (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").is_file()}
        assert not extra, f"{here} must not import {sorted(extra)}"
    if here in ONLY_PACKAGES:
        packages = {name.split(".")[0] for name in imported(path)} - {"lmzoo"}
        assert packages <= ONLY_PACKAGES[here], packages
    if here == "backbones":
        siblings = {name for name in imported(path) if name.startswith("lmzoo.backbones.")}
        assert not siblings, "backbones never import each other"


def test_harness_never_asks_for_an_architecture() -> None:
    names = {file.stem for file in (PACKAGE / "backbones").glob("*.py")} - {"__init__"}
    for path in modules():
        if room(path) in HARNESS:
            strings = {n.value for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Constant)}
            assert not strings & names, f"{path} names an architecture: {strings & names}"


def test_importing_lmzoo_imports_no_torch() -> None:
    script = (
        "import lmzoo, lmzoo.cli, sys; lmzoo.list_models(); assert not {'torch', 'pydantic', 'rich'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_public_names_exist() -> None:
    import lmzoo

    for name in lmzoo.__all__:
        assert getattr(lmzoo, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        lmzoo.nothing  # noqa: B018
