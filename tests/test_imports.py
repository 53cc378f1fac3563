"""Tests which package may import which, and what importing lmzoo must not cost."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "lmzoo"
ANY = None
EVERYBODY = {
    "errors",
    "configs",
    "files",
    "humanize",
    "arguments",
    "suggestions",
    "terminal",
    "packages",
    "plotting",
}  # may be imported from anywhere

# For each package or module of lmzoo: the others that it may import when it runs (not for types alone).
MAY_IMPORT: dict[str, set[str] | None] = {
    "errors": set(),
    "files": set(),
    "arguments": set(),
    "bounds": set(),
    "plugins": set(),
    "configs": set(),
    "humanize": set(),
    "suggestions": set(),
    "terminal": set(),
    "settings": set(),
    "targets": {"registry", "plugins"},
    "hardware": {"__init__"},  # for the version
    "compiling": set(),
    "randomness": set(),
    "roles": set(),
    "ops": set(),
    "losses": {"ops"},
    "state": {"storage"},
    "storage": {"registry", "hf", "inference"},  # to load a model by the name in its file; the last two lazily
    "flops": {"ops"},
    "layers": {"ops", "state", "losses", "roles"},
    "model": {
        "bounds",
        "flops",
        "roles",
        "state",
        "losses",
        "sampling",
        "generation",
        "storage",
    },  # the last two lazily
    "decoder": {"model", "layers", "state"},
    "cell_model": {"model", "decoder", "layers"},
    "entries": set(),
    "skeleton": set(),
    "plotting": set(),
    "packages": set(),  # `api` by name, when a package is called
    "api": ANY,
    "registry": {"entries", "plugins", "building", "matching", "transplant"},  # the last two lazily
    "building": {"bounds", "layers"},  # lazily: they import torch
    "transplant": {"model", "decoder", "layers", "registry", "settings", "storage"},
    "matching": {"model", "registry"},
    "drawing": {"model", "layers", "state", "flops"},
    # of the layers patterns and rules for positions
    "hf": {"model", "registry", "storage", "state", "losses", "inference", "data", "layers"},
    "gguf": {"model", "hf", "storage", "data", "layers"},
    "backbones": {"model", "decoder", "cell_model", "layers", "ops", "registry", "state"},
    "data": {"storage", "losses"},  # of the losses the target that is ignored
    "sampling_config": set(),
    "sampling": {"sampling_config", "randomness"},
    "generation": {"bounds", "sampling", "randomness", "model", "state"},
    "inference": {"model", "losses", "state", "compiling"},
    "distributed": {"model", "storage", "layers", "hardware"},
    "train": {
        "bounds",
        "model",
        "storage",
        "distributed",
        "data",
        "losses",
        "layers",
        "ops",  # `precision`
        "state",
        "hardware",
        "compiling",
    },
    "runs": {
        "bounds",
        "model",
        "registry",
        "storage",
        "distributed",
        "data",
        "train",
        "ops",  # `kernels`, to record them
        "hf",  # to export the model of a run
        "__init__",
    },
    "conformance": {
        "model",
        "registry",
        "targets",
        "storage",
        "state",
        "losses",
        "flops",
        "data",
        "generation",
        "inference",
        "sampling",
        "layers",
        "compiling",
        "ops",  # `stable_topk`, whose choices it repeats
    },
    "harness": {"generation", "data", "model", "sampling_config", "runs"},
    "probing": {
        "registry",
        "plugins",
        "model",
        "losses",
        "storage",
        "distributed",
        "data",
        "train",
        "runs",
        "conformance",
        "compare",  # one spec for each model, all with one budget
        "hardware",
    },
    "inspect": {
        "registry",
        "model",
        "layers",
        "ops",  # `precision`
        "state",
        "conformance",  # the gradients to embeddings
        "generation",
        "data",
        "train",
        "runs",
        "storage",
        "compare",  # the look of its report
    },
    "gallery": {"registry", "entries", "model", "drawing", "conformance", "compare", "__init__"},
    "puzzles": {
        "registry",
        "data",
        "__init__",  # the last four: its sources are models such as a user writes
        "layers",
        "ops",
        "state",
    },
    "reproducing": {"probing", "compare", "data", "storage", "runs", "train", "hardware"},
    "bench": ANY,
    "compare": ANY,
    "__init__": ANY,
    "cli": ANY,
    "__main__": ANY,
}
# Shared code: it knows the contract, the registry, the composers of layers and what layers offer, but no layer and no
# backbone.
SHARED = {
    "distributed",
    "train",
    "runs",
    "compare",
    "probing",
    "reproducing",
    "conformance",
    "inspect",
    "bench",
    "storage",
}
ONLY_PACKAGES = {
    "ops": {"torch", "einops", "__future__", "math", "collections", "typing", "contextlib", "contextvars", "functools"},
    "ops/kernels.py": {"torch", "__future__", "collections", "typing", "os", "re", "importlib"},
    "ops/cuda/fla.py": {"torch", "__future__", "collections", "typing", "fla"},
}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def package_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


class WithoutTypeImports(ast.NodeTransformer):
    """Removes `if TYPE_CHECKING:` blocks, which no running program executes."""

    def visit_If(self, node: ast.If) -> ast.AST | None:
        return None if ast.unparse(node.test) == "TYPE_CHECKING" else self.generic_visit(node)


def imported(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(WithoutTypeImports().visit(ast.parse(path.read_text(encoding="utf-8")))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: import by full name"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_packages_import_only_what_they_may() -> None:
    paths = modules()
    assert len(paths) > 400
    for path in paths:
        require_allowed_imports(path)


def require_allowed_imports(path: Path) -> None:
    here, names = package_of(path), imported(path)
    used = {name.split(".")[1] for name in names if name.startswith("lmzoo.")} - {here}
    used = {name if (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").is_file() else "__init__" for name in used}
    allowed = MAY_IMPORT[here]
    if allowed is not ANY:
        assert not used - allowed - EVERYBODY, f"{path}: {here} must not import {sorted(used - allowed - EVERYBODY)}"
    if here in SHARED:
        assert not used & {"backbones", "decoder", "cell_model", "cli"}, (path, used)
        layers = {name for name in names if name.startswith("lmzoo.layers.")}
        assert all(name.startswith(("lmzoo.layers.stack.", "lmzoo.layers.offers.")) for name in layers), (path, layers)
    only = ONLY_PACKAGES.get(path.relative_to(PACKAGE).as_posix(), ONLY_PACKAGES.get(here))
    if only is not None:
        packages = {name.split(".")[0] for name in names} - {"lmzoo"}
        assert packages <= only, (path, packages)
    if here == "backbones":
        siblings = {name for name in names if name.startswith("lmzoo.backbones.")}
        assert not siblings, f"{path}: backbones never import each other"
    if here != "ops":
        direct = {name for name in names if name.startswith(("lmzoo.ops.cpu", "lmzoo.ops.cuda"))}
        assert not direct, f"{path}: reach ops/cpu and ops/cuda by their dispatchers"


def test_shared_code_names_no_architecture() -> None:
    names = {file.stem for file in (PACKAGE / "backbones").glob("*.py")} - {"__init__"}
    for path in modules():
        if package_of(path) in SHARED:
            strings = {n.value for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Constant)}
            assert not strings & names, f"{path} names an architecture: {strings & names}"


def test_import_lmzoo_imports_no_torch() -> None:
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
    done = subprocess.run([sys.executable, "-c", "import lmzoo; lmzoo.trian"], capture_output=True, text=True)
    assert done.stderr.endswith("has no attribute 'trian'. Did you mean: 'train'?\n")
