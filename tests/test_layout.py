"""Tests that tests/ mirrors lmzoo/: each module has a test file of its name, or is listed with where it is tested."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parent.parent
MODULES = sorted(
    path.relative_to(ROOT / "lmzoo") for path in (ROOT / "lmzoo").rglob("*.py") if path.name != "__init__.py"
)

MACHINERY = (  # of lmzoo/hf
    *("architecture", "architectures", "card", "causal_lm", "causal_lm_config", "decoding_cache", "directory"),
    *("experts", "fitting", "hub", "keys", "latent", "layer_types", "layouts", "load", "names", "own", "padding"),
    *("rotary", "shards", "tokenizer", "weights", "writer"),
)
# Modules without a test file of their name, and the file or folder in which they are tested.
ELSEWHERE = {
    "__main__.py": "tests/cli/test_group.py",  # starts `python -m lmzoo`
    "runs/training.py": "tests/runs/test_resume.py",
    # Descriptions of architectures are tested together, by comparing their models with transformers'.
    # Descriptions of GGUF architectures too, by comparing files with what llama.cpp's converter writes.
    **{
        f"gguf/{name}_forms.py": "tests/gguf/test_write.py"
        for name in ("llama", "gpt", "recurrent", "expert", "grouped", "hybrid", "mamba")
    },
    **{f"hf/{m.name}": "tests/hf/test_load.py" for m in MODULES if m.parts[0] == "hf" and m.stem not in MACHINERY},
    **{m.as_posix(): "tests/puzzles/test_catalog.py" for m in MODULES if m.parts[:2] == ("puzzles", "sources")},
}


def mirrored(module: Path) -> Path:
    """Return the path of the test file of a module."""
    return ROOT / "tests" / module.parent / f"test_{module.name}"


def test_layout_modules_have_a_test_file() -> None:
    assert len(MODULES) > 400
    for module in MODULES:
        test = mirrored(module)
        if str(module) in ELSEWHERE:
            assert not test.exists(), f"{module} has its own test file: remove it from ELSEWHERE"
        else:
            assert test.is_file(), f"write {test.relative_to(ROOT)}, or add {module} to ELSEWHERE"


def test_layout_elsewhere_names_existing_files() -> None:
    for module, place in ELSEWHERE.items():
        assert Path(module) in MODULES, module
        assert (ROOT / place).exists(), place
